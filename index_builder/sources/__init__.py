"""Where pictures come from: folders, archives, lists."""
