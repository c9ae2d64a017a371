"""Configurations of threestudio as configurations of a run here."""

from vlmreward_3d.threestudio.importer import ThreestudioImport, import_threestudio

__all__ = ["ThreestudioImport", "import_threestudio"]
