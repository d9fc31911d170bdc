"""One masked autoencoder, spelled in five frameworks."""
