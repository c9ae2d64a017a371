"""Import of configurations of threestudio as configurations of this package."""

from vlmreward_3d.threestudio.importer import ThreestudioImport, import_threestudio

__all__ = ["ThreestudioImport", "import_threestudio"]
