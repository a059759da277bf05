"""The corpus: packages and folders of pictures packed into shards, split and licensed."""
