"""The corpus: packages and folders of pictures written as listed folders, split and licensed."""
