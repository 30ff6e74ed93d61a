"""Open Images instance segmentation on MMDetection.

Layers, each importing only from those above it:

1. ``labels``: classes, hierarchy, expansion
2. ``masks``: RLE, submission text, polygons
3. ``metric``: the challenge metric
4. ``annotations``: official files to one prepared index
5. ``submissions``: Kaggle and TF CSVs
6. ``mm``: the parts registered with MMDetection

Importing this package loads nothing: layers 1 to 5 work without torch.
"""
