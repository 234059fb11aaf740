"""The commands of `penstock`, a file a group; each has `add(app)`."""
