"""VLM3D: text-to-3D by score distillation and a vision-language reward on a NeRF."""
