"""From a source of images and labels to a verified and split dataset."""
