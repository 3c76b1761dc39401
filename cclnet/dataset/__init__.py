"""From a source of images and labels to a verified, divided dataset."""
