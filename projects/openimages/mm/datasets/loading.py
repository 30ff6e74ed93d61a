"""Loading test images so that a file that cannot be read is named, not a traceback in a worker."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'


@TRANSFORMS.register_module()
class LoadImageOrBlank(LoadImageFromFile):
    """``LoadImageFromFile`` that gives a black image with ``unreadable=REASON`` where it fails.

    The main process decides what happens then, see ``SubmissionDumpHook``: an exception in a
    loader's worker process would arrive as several tracebacks in one string. Needs ``height`` and
    ``width`` in the item, and ``unreadable`` among the packed ``meta_keys``.
    """

    def transform(self, results: dict) -> dict:
        """Load one image."""
        path = results['img_path']
        try:
            if self.backend_args is None and is_truncated_jpeg(path):
                raise ValueError('the file is cut short')
            return super().transform(results)
        except FileNotFoundError:
            reason = 'no such file (the image)'
        except (OSError, ValueError, AssertionError, cv2.error) as error:
            known = isinstance(error, OSError | ValueError) and str(error)
            reason = f'not a readable image{f" ({error})" if known else ""}'
        shape = (results['height'], results['width'])
        blank = np.zeros((*shape, 3), np.float32 if self.to_float32 else np.uint8)
        return {**results, 'img': blank, 'img_shape': shape, 'ori_shape': shape,
                'unreadable': reason}


def is_truncated_jpeg(path: str | Path) -> bool:
    """Whether a JPEG lacks its end marker. OpenCV would fill what is missing with grey."""
    with open(path, 'rb') as file:
        if file.read(2) != _JPEG_START:
            return False
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 4096))  # some cameras write a few bytes after the end
        return _JPEG_END not in file.read()
