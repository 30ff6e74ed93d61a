"""What is wrong with a model: from one dump to a page that says so, by the challenge's own rules.

``outcomes`` reads the dump once and says of every detection what became of it and why; ``errors``,
``confusion``, ``calibration``, ``operating``, ``suspects`` and ``compare`` count; ``plots`` and
``pictures`` draw; ``report`` puts all of it together and ``page`` makes HTML of it.
"""
