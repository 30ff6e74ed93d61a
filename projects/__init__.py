"""Namespace of the projects in this repository, as MMDetection lays them out."""
