"""Pictures of the echo phantom: how a scanner of a given style shows an echogenicity map.

The model. Scatterers are complex Gaussian noise whose standard deviation is the local echo amplitude; the scanner
blurs them with its point spread function and shows the log-compressed envelope. So speckle is Rayleigh distributed
where the echo is even, and one convolution makes both the speckle and the blur of the borders.

    power(x, y)    = 10^((echo - attenuation * depth) / 10) + 10^(haze(depth) / 10)
    envelope(x, y) = | PSF * (sqrt(power) * noise) |,  noise ~ complex N(0, 1),  sum of PSF^2 = 1
    pixel(x, y)    = clip(1 + (20 log10 envelope + gain) / dynamic_range, 0, 1) inside the sector, 0 outside
"""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.special import expit

from labeldrop_bench.data._anatomy import Array, grid

# Style number 0 -> value, style number 1 -> value; linear in between.
STYLE = {
    "gain": (-3.0, 5.0),  # dB added before display
    "dynamic_range": (58.0, 40.0),  # dB from black to white: less of it is more contrast
    "attenuation": (0.0, 30.0),  # dB lost from the upper to the lower edge, beyond what the scanner compensates
    "haze": (-52.0, -34.0),  # dB, clutter at the transducer; falls by HAZE_SLOPE
    "resolution": (0.008, 0.026),  # standard deviation of the PSF across the beam, fraction of the image height
    "half_angle": (40.0, 31.0),  # degrees, sector
}
HAZE_SLOPE = 8.0  # dB from the upper to the lower edge
AXIAL_RATIO = 0.5  # PSF along the beam / across it
VIRTUAL_APEX = -0.13  # y where the sector's edges meet; a curved probe face lies below it
FACE, DEPTH = 0.17, 1.10  # sector from radius FACE to radius DEPTH, from the virtual apex
FIELD_SD, FIELD_SCALE = 2.5, 0.08  # dB and fraction of height: tissue is not even; parts of the wall drop out


def draw_style(n: int, shift: float | np.ndarray, rng: np.random.Generator) -> Array:
    """Style numbers sigmoid(shift + N(0, 1)), [n, len(STYLE)] float32 in (0, 1); one shift, or one for each."""
    style: Array = expit(shift + rng.standard_normal((n, len(STYLE)))).astype(np.float32)
    return style


def scan(echo: Array, style: Array, rng: np.random.Generator) -> Array:
    """What the scanner shows.

    Args:
        echo: [n, H, W] mean echo in dB.
        style: [n, len(STYLE)] style numbers in [0, 1], in the order of `STYLE`.
        rng: speckle and unevenness come from here.

    Returns:
        [n, H, W] float32 in [0, 1].
    """
    x, y = grid((echo.shape[1], echo.shape[2]))
    values = {
        name: (low + (high - low) * style[:, i])[:, None, None] for i, (name, (low, high)) in enumerate(STYLE.items())
    }
    field = _filtered_noise(np.float32(1), echo.shape, FIELD_SCALE, FIELD_SCALE, rng).real * np.sqrt(2)
    level = echo + FIELD_SD * field - values["attenuation"] * y
    haze = values["haze"] - HAZE_SLOPE * y
    amplitude = np.sqrt(10 ** (level / 10) + 10 ** (haze / 10)).astype(np.float32)
    width = values["resolution"]
    envelope = np.abs(_filtered_noise(amplitude, echo.shape, AXIAL_RATIO * width, width, rng))
    shown = 1 + (20 * np.log10(envelope + 1e-6) + values["gain"]) / values["dynamic_range"]
    pixels: Array = (np.clip(shown, 0, 1) * in_sector(x, y, values["half_angle"])).astype(np.float32)
    return pixels


def in_sector(x: Array, y: Array, half_angle: Array | float) -> np.ndarray:
    """Whether the sector of that half angle (degrees) shows the point."""
    radius = np.hypot(x, y - VIRTUAL_APEX)
    angle = np.rad2deg(np.arctan2(np.abs(x), y - VIRTUAL_APEX))
    inside: np.ndarray = (radius > FACE) & (radius < DEPTH) & (angle < half_angle)
    return inside


def _filtered_noise(
    amplitude: Array | np.float32,
    shape: tuple[int, ...],
    sd_y: Array | float,
    sd_x: Array | float,
    rng: np.random.Generator,
) -> np.ndarray:
    """PSF * (amplitude * noise), complex64 [n, H, W]: Gaussian PSF, standard deviations in fractions of the height.

    The PSF's squares sum to 1, so that E|result|^2 = 1 where the amplitude is an even 1.
    """
    n, height, width = shape
    unit = min(height, width)
    parts = rng.standard_normal((n, 2, height, width), dtype=np.float32)
    noise = (parts[:, 0] + 1j * parts[:, 1]) * np.float32(np.sqrt(0.5))
    # Fourier transform of a Gaussian of standard deviation sd (pixels): exp(-2 pi^2 sd^2 f^2)
    gain_y = np.exp(-2 * (np.pi * np.asarray(sd_y) * unit * fft.fftfreq(height)[:, None]) ** 2)
    gain_x = np.exp(-2 * (np.pi * np.asarray(sd_x) * unit * fft.fftfreq(width)[None]) ** 2)
    transfer = gain_y * gain_x
    transfer = transfer / np.sqrt(np.mean(transfer**2, axis=(-2, -1), keepdims=True))  # Parseval
    result: np.ndarray = fft.ifft2(fft.fft2(amplitude * noise) * transfer.astype(np.float32))
    return result
