"""Pictures of any size as rows of RGB bytes of the size that is asked for.

A pixel of the result is the mean of what it covers, parts of pixels by their share (a box filter): nothing
thin is lost between the sampled points, and a picture of the right size stays as it is. With NumPy where the
environment brings it, else the same in plain Python.
"""
import sys

SIDE_MAX = 16384


def boxes(size, wanted):
    """For each of `wanted` pixels: the pixels it covers of `size`, and their shares, which add up to 1."""
    out = []
    for i in range(wanted):
        low, high = i * size / wanted, (i + 1) * size / wanted
        end = min(size, int(high) + (high > int(high)))
        shares = [min(high, at + 1) - max(low, at) for at in range(int(low), end)]
        total = sum(shares)
        out.append((int(low), [share / total for share in shares]))
    return out


def check(shape):
    if len(shape) != 3 or shape[2] not in (3, 4) or not all(1 <= side <= SIDE_MAX for side in shape[:2]):
        raise ValueError("render gave an array of %s, not a picture [height][width][3]" % (tuple(shape),))


def shrink(np, frame, axis, wanted):
    """The sums up to each pixel's edges, parts by their share, and their differences."""
    size = frame.shape[axis]
    if size == wanted:
        return frame
    frame = np.moveaxis(frame, axis, 0)
    sums = np.concatenate([np.zeros((1,) + frame.shape[1:]), np.cumsum(frame, axis=0)])
    edges = np.arange(wanted + 1) * (size / wanted)
    edges[-1] = size
    below = np.minimum(edges.astype(np.int64), size - 1)
    part = (edges - below).reshape((-1,) + (1,) * (frame.ndim - 1))
    means = np.diff(sums[below] + part * frame[below], axis=0) * (wanted / size)
    return np.moveaxis(means, 0, axis)


def resized_array(np, frame, width, height):
    check(frame.shape)
    if frame.dtype != np.uint8:
        raise ValueError("render gave numbers of type %s, not bytes" % frame.dtype)
    frame = frame[:, :, :3]
    if frame.shape[:2] != (height, width):
        means = shrink(np, shrink(np, frame.astype(np.float64), 0, height), 1, width)
        frame = np.clip(np.floor(means + 0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(frame).tobytes()


def resized_lists(frame, width, height):
    rows = [[tuple(pixel) for pixel in row] for row in frame]
    shape = (len(rows), len(rows[0]) if rows else 0, len(rows[0][0]) if rows and rows[0] else 0)
    check(shape)
    if any(len(row) != shape[1] or any(len(pixel) != shape[2] for pixel in row) for row in rows):
        raise ValueError("render gave rows of different lengths, not a picture")
    columns = boxes(shape[1], width)
    narrow = [[[sum(share * row[at + k][c] for k, share in enumerate(shares)) for c in range(3)]
               for at, shares in columns] for row in rows]
    out = bytearray()
    for at, shares in boxes(shape[0], height):
        for x in range(width):
            for c in range(3):
                mean = sum(share * narrow[at + k][x][c] for k, share in enumerate(shares))
                if not 0 <= mean <= 255:
                    raise ValueError("render gave a picture of numbers outside of 0 to 255")
                out.append(min(255, int(mean + 0.5)))
    return bytes(out)


def resized(frame, width, height):
    """frame [rows][columns][3 or 4] of bytes -> bytes [height][width][3]"""
    np = sys.modules.get("numpy")
    if np is not None:
        return resized_array(np, np.asarray(frame), width, height)
    return resized_lists(frame, width, height)
