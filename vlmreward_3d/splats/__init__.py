"""3D Gaussian splats: the field, its projection, its pictures and its file."""
