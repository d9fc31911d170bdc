"""Images as every framework gets them: decoded, resized, cropped, normalised. NumPy and Pillow only."""
