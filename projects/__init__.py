"""Namespace of the projects in this repository, as MMDetection lays them out.

MMDetection's own repository has a folder ``projects`` as well. Wherever that comes first on
``sys.path``, as it does in a notebook or with ``python -m`` from there, this package is found all
the same, and both folders' projects can be imported. (Only a ``projects`` that has an
``__init__.py`` of its own and comes first would hide it; MMDetection's has none.)
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
