"""Import a folder of recordings: one reader for each family of layouts, and one writer of Common Voice's."""
