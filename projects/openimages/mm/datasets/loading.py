"""Images that cannot be read: which they are, and how a test loads them without a traceback."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
_MISSING = 'no such file (the image)'
_CUT_SHORT = 'the file is cut short'


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
                raise ValueError(_CUT_SHORT)
            return super().transform(results)
        except FileNotFoundError:
            reason = _MISSING
        except (OSError, ValueError, AssertionError, cv2.error) as error:
            known = isinstance(error, OSError | ValueError) and str(error)
            reason = f'not a readable image{f" ({error})" if known else ""}'
        return blank_image(results, reason, np.float32 if self.to_float32 else np.uint8)


def blank_image(results: dict, reason: str, dtype: type = np.uint8) -> dict:
    """The item with a black image of its ``height`` and ``width``, and why as ``unreadable``."""
    shape = (results['height'], results['width'])
    return {**results, 'img': np.zeros((*shape, 3), dtype), 'img_shape': shape,
            'ori_shape': shape, 'unreadable': reason}


def why_unreadable(path: str | Path, *, decode: bool = False) -> str | None:
    """Why a file is not the image it should be; None if it is.

    Args:
        path: the image.
        decode: decode it too; otherwise only what a look at its two ends shows, in microseconds.
    """
    try:
        if is_truncated_jpeg(path):
            return f'not a readable image ({_CUT_SHORT})'
        if decode and cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is None:
            return 'not a readable image'
    except FileNotFoundError:
        return _MISSING
    except (OSError, cv2.error) as error:
        return f'not a readable image ({error})'
    return None


def is_truncated_jpeg(path: str | Path) -> bool:
    """Whether a JPEG lacks its end marker. OpenCV would fill what is missing with grey."""
    with open(path, 'rb') as file:
        if file.read(2) != _JPEG_START:
            return False
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 4096))  # some cameras write a few bytes after the end
        return _JPEG_END not in file.read()
