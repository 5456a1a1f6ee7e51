"""Generates the components of a casing image, each from a generator and a style.

Longer than 300 lines because the style, its measured ranges and the components that use them change together.

Axes H depth rows, W azimuth columns, J joints, K azimuthal orders. Lengths in depth are rows; widths and angles in
azimuth are columns of a 36-column image ("column" = 10 degrees), whatever W is, so that a 72-column well is the same
pipe at a finer resolution. Values are fractions of the wall, negative where metal is lost. All arrays are float32
unless stated.
"""

from dataclasses import dataclass, replace

import numpy as np

COLUMNS_PER_TURN = 36
"""Number of columns of a turn in which widths and azimuths are expressed."""

MAX_ORDER = 36
"""Highest azimuthal order of the texture: detail below 5 degrees is pixel noise."""

COLLAR_HALF_ROWS = 14
"""Half height of a collar in rows."""


@dataclass(frozen=True)
class Style:
    """Holds the parameters of one well.

    Lengths in rows, widths in 36ths of a turn, amplitudes in fractions of the wall.
    joint_rows          mean distance of collars
    texture_std         standard deviation of the smooth texture, all components together
    streak_share, wobble_share, lattice_share, row_share
                        fractions of the texture's variance: axial streaks, low-order waves that change quickly in
                        depth, the helical lattice of the rolling mill, and row-independent texture
    streak_rows, wobble_rows    correlation lengths in depth
    streak_slope        amplitude of the azimuthal order k falls as k ** -slope (row texture: half the slope)
    beam_order          order beyond which the transducer's beam blurs streaks and lattice
    eccentricity        amplitude of order 1 relative to that law
    lattice_orders, lattice_frequencies     (M,) the spots of the lattice in the spectrum: order; cycles per row
    pixel_std           independent noise of each pixel
    banding_std         offset of each sensor column, the same for the whole well
    checker_std         column-to-column alternation that changes from row to row, 0 in most wells
    noisy_bands         excess of spikes and pixel noise on thin, dark streaks (0: none)
    spike_rate          spikes per pixel
    collar_std, collar_run, collar_lines, collar_gap, collar_checker
                        strength; run length in columns; number of lines and rows between them; alternating columns
    dash_rate           short horizontal marks per row
    damage_rate         blotches of saturated pixels per row
    groove_presence     fraction of rows with the main groove (0: none in this well)
    groove_run          median length of an uninterrupted groove
    groove_depth, groove_width, groove_power    depth; width of the labelled part; exponent of the profile
    groove_widest       limit of that width in any row
    label_fraction      a pixel is labelled where its loss is at least this fraction of the groove's depth in that row
    second_presence     fraction of rows with a second groove
    turn_rate           typical rotation of the tool, columns per row
    dropout_rate        null rows per row; null_pixel_rate: null pixels per pixel
    """

    joint_rows: float
    texture_std: float
    streak_share: float
    wobble_share: float
    lattice_share: float
    row_share: float
    streak_rows: float
    wobble_rows: float
    streak_slope: float
    beam_order: float
    eccentricity: float
    lattice_orders: np.ndarray
    lattice_frequencies: np.ndarray
    pixel_std: float
    banding_std: float
    checker_std: float
    noisy_bands: float
    spike_rate: float
    collar_std: float
    collar_run: float
    collar_lines: int
    collar_gap: float
    collar_checker: bool
    dash_rate: float
    damage_rate: float
    groove_presence: float
    groove_run: float
    groove_depth: float
    groove_width: float
    groove_power: float
    groove_widest: float
    label_fraction: float
    second_presence: float
    turn_rate: float
    dropout_rate: float
    null_pixel_rate: float


def draw_style(rng: np.random.Generator) -> Style:
    """Samples a style from ranges measured on the CorroSeg wells (benchmarks/realism)."""

    def log_normal(median: float, sigma: float, low: float, high: float) -> float:
        return float(np.clip(median * np.exp(sigma * rng.standard_normal()), low, high))

    milled = rng.random() < 0.4
    shares = rng.dirichlet([5.5, 0.8, 1.8 if milled else 0.25, 0.6])
    orders, frequencies = _draw_lattice(rng)
    noisy = rng.random() < 0.15
    checker = rng.random() < 0.2
    grooved = rng.random() < 0.9
    return Style(
        joint_rows=float(rng.choice([330.0, 330.0, 330.0, 345.0, 310.0, 160.0])),
        texture_std=log_normal(0.0128, 0.2, 0.009, 0.02),
        streak_share=float(shares[0]),
        wobble_share=float(shares[1]),
        lattice_share=float(shares[2]),
        row_share=float(0.12 * shares[3]),
        streak_rows=log_normal(35, 0.6, 10, 150),
        wobble_rows=log_normal(7, 0.5, 3, 20),
        streak_slope=float(rng.uniform(0.6, 1.25)),
        beam_order=log_normal(10, 0.3, 5, 20),
        eccentricity=log_normal(1.6, 0.3, 0.8, 3),
        lattice_orders=orders,
        lattice_frequencies=frequencies,
        pixel_std=log_normal(0.003, 0.2, 0.002, 0.0042) if noisy else log_normal(0.0005, 0.45, 0.0002, 0.0016),
        banding_std=log_normal(0.0006, 0.5, 0.0002, 0.002),
        checker_std=log_normal(0.0006, 0.3, 0.0003, 0.001) if checker else 0.0,
        noisy_bands=float(rng.uniform(0.7, 1.4)) if noisy else 0.3,
        spike_rate=log_normal(0.012, 0.4, 0.005, 0.025) if noisy else log_normal(0.00006, 0.7, 0.00001, 0.0004),
        collar_std=log_normal(0.07, 0.3, 0.03, 0.15),
        collar_run=float(rng.uniform(0.3, 0.8)) if noisy or checker else log_normal(3, 0.4, 1, 6),
        collar_lines=int(rng.integers(1, 4)),
        collar_gap=float(rng.uniform(2, 7)),
        collar_checker=bool(checker),
        dash_rate=log_normal(0.003, 0.7, 0.0005, 0.015),
        damage_rate=log_normal(0.00004, 1.0, 0.000005, 0.0003),
        groove_presence=float(rng.beta(1.8, 0.6)) if grooved else 0.0,
        groove_run=log_normal(300, 0.8, 60, 1500),
        groove_depth=log_normal(0.027, 0.5, 0.014, 0.08),
        groove_width=float(rng.uniform(1.7, 3.9)),
        groove_power=float(rng.uniform(1.6, 2.6)),
        groove_widest=4.0,
        label_fraction=0.4,
        second_presence=float(rng.uniform(0.05, 0.3)) if rng.random() < 0.4 else 0.0,
        turn_rate=log_normal(0.004, 1.0, 0.0005, 0.04),
        dropout_rate=log_normal(0.001, 1.3, 0.0001, 0.02),
        null_pixel_rate=log_normal(0.00003, 1.0, 0.0, 0.0005),
    )


def vary_style(rng: np.random.Generator, style: Style, num_columns: int) -> Style:
    """Varies label edge, label width, grooved rows and lattice of `style` as between real wells.

    Measured on the silver labels, which are pseudo-labels (benchmarks/real_wells): half the wells, and all with 72
    columns, have narrow grooves labelled near their bottom, the others wide ones labelled far up the flank. Every sixth
    well has a helix of one hand that dominates the texture. The random numbers do not depend on `num_columns`.
    """
    narrow, width, fraction, power = rng.random(4)
    sparse, presence, striped, share = rng.random(4)
    order, frequency = int(rng.integers(2, 5)), float(rng.choice([-1.0, 1.0]) * rng.uniform(0.02, 0.06))
    if narrow < 0.5 or num_columns == 2 * COLUMNS_PER_TURN:
        width, fraction = 1.4 + 1.5 * width, 0.3 + 0.2 * fraction
    else:
        width, fraction = 3.1 + 1.2 * width, 0.15 + 0.15 * fraction
    varied = replace(
        style,
        groove_width=width,
        groove_power=1.8 + power,
        groove_widest=6.0,
        label_fraction=fraction,
        groove_presence=min(style.groove_presence, 0.03 + 0.27 * presence) if sparse < 0.1 else style.groove_presence,
        second_presence=0.12 * style.second_presence,
    )
    if striped >= 1 / 6:
        return varied
    # One order and its double at twice the frequency: parallel stripes, not the bumps of crossing helices.
    share = 0.55 + 0.2 * share
    rest = (1 - share) / max(1 - style.lattice_share, 1e-6)
    return replace(
        varied,
        lattice_share=share,
        streak_share=rest * style.streak_share,
        wobble_share=rest * style.wobble_share,
        row_share=rest * style.row_share,
        lattice_orders=np.array([order, order, 2 * order]),
        lattice_frequencies=np.array([frequency, 1.1 * frequency, 2 * frequency]),
    )


def _fast_length(n: int) -> int:
    """Returns the least m * 2 ** e >= n with m <= 16: a fast FFT length, at most 1/8 longer."""
    e = max(0, int(n - 1).bit_length() - 4)
    return -(-n // 2**e) * 2**e


def _draw_lattice(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples orders (M,) >= 1 and frequencies (M,) of the spots of two helices of opposite hand.

    The spots are the helices, their sum and their difference. Two crossing helices make the round bumps of the real
    images; single spots would make plain stripes.
    """
    hand = rng.choice([-1.0, 1.0])
    steep, flat = rng.integers(3, 6), rng.integers(1, 4)
    f_steep, f_flat = hand * rng.uniform(0.015, 0.06), -hand * rng.uniform(0.05, 0.13)
    orders = np.array([steep, flat, steep + flat, steep - flat, 2 * flat])
    frequencies = np.array([f_steep, f_flat, f_steep + f_flat, f_steep - f_flat, 2 * f_flat])
    flipped = orders < 0  # order -k at frequency f is order k at -f
    orders, frequencies = np.abs(orders), np.where(flipped, -frequencies, frequencies)
    return orders[orders > 0], frequencies[orders > 0]


def _white_noise(rng: np.random.Generator, num_rows: int, num_series: int) -> np.ndarray:
    """Samples white noise (H, num_series) complex64 of unit variance."""
    pairs = rng.standard_normal((num_rows, num_series, 2), dtype=np.float32)
    return pairs.view(np.complex64)[..., 0] * np.float32(np.sqrt(0.5))


def smooth_noise(
    rng: np.random.Generator, num_rows: int, num_series: int, length: float, power: float = 1.0
) -> np.ndarray:
    """Samples (H, num_series) complex64 noise correlated along depth over `length` rows.

    Unit variance, independent series. Amplitude spectrum (1 + (2 pi f length)^2) ** (-power / 2); power 1 decays
    exponentially, larger is smoother. The real part alone has variance 1/2.
    """
    padded = _fast_length(num_rows + int(4 * length))
    spectrum = (1 + (2 * np.pi * np.fft.fftfreq(padded) * length) ** 2) ** (-power / 2)
    spectrum /= np.sqrt(np.mean(spectrum**2))
    white = _white_noise(rng, padded, num_series)
    white *= (spectrum * np.sqrt(padded)).astype(np.float32)[:, None]
    # The spectrum of white noise is white, so that one inverse transform suffices.
    return np.fft.ifft(white, axis=0)[:num_rows]


def smooth_series(rng: np.random.Generator, num_rows: int, length: float, power: float = 2.0) -> np.ndarray:
    """Samples one real series (H,) of `smooth_noise`, variance 1."""
    return smooth_noise(rng, num_rows, 1, length, power)[:, 0].real * np.float32(np.sqrt(2))


def ring_noise(rng: np.random.Generator, shape: tuple[int, ...], num_columns: int, run: float) -> np.ndarray:
    """Samples (*shape, W) noise of variance 1, circularly correlated over about `run` columns of 36."""
    order = np.fft.rfftfreq(num_columns, 1 / num_columns)
    gain = np.exp(-0.5 * (order * run * np.pi / COLUMNS_PER_TURN) ** 2)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal((*shape, num_columns))) * gain, num_columns)
    return (noise / np.sqrt(np.mean(noise**2) + 1e-12)).astype(np.float32)


def draw_collars(rng: np.random.Generator, num_rows: int, joint_rows: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples the rows of the collars (J,) int64, ascending, and the joint of each row (H,) int64.

    Joints are numbered 0 .. J, their lengths differ by some 5 %, and one in twelve is short. The first collar is
    anywhere in the first joint.
    """
    count = int(3 * num_rows / joint_rows) + 8
    lengths = joint_rows * (1 + 0.05 * rng.standard_normal(count))
    lengths[rng.random(count) < 1 / 12] *= 0.4
    lengths[0] *= rng.random()
    collars = np.cumsum(np.maximum(lengths, 4)).astype(np.int64)
    collars = collars[collars < num_rows]
    joint = np.zeros(num_rows, dtype=np.int64)
    joint[collars] = 1
    return collars, np.cumsum(joint)


def draw_rotation(rng: np.random.Generator, num_rows: int, turn_rate: float) -> np.ndarray:
    """Samples the azimuth of the tool (H,) float64 in columns.

    The tool mostly does not rotate, and sometimes rotates steadily for hundreds of rows.
    """
    rate = smooth_series(rng, num_rows, 250.0)
    return np.cumsum(turn_rate * rate.astype(np.float64) * np.abs(rate) ** 1.5)


def texture(
    rng: np.random.Generator, style: Style, joint: np.ndarray, rotation: np.ndarray, num_columns: int
) -> np.ndarray:
    """Generates the pipe without defects (H, W): streaks, wobble, lattice and row noise.

    Each row is a Fourier series over azimuth whose coefficients are random series in depth; the first order of wobble
    is eccentricity. Joints differ in strength, phase and mixture, as each is a separate pipe.
    """
    num_rows, num_joints = len(joint), int(joint[-1]) + 1
    orders = np.arange(1, min(num_columns // 2, MAX_ORDER) + 1)
    beam = np.exp(-0.5 * (orders / style.beam_order) ** 2)
    decay = orders**-style.streak_slope * np.where(orders == 1, style.eccentricity, 1.0)

    def part(coefficients: np.ndarray, share: float, gains: np.ndarray, spread: float) -> np.ndarray:
        """Scales each order to `share` of the variance; samples phase and strength per joint."""
        gains = gains * np.sqrt(2 * share / np.sum(gains**2))
        strength = np.exp(spread * rng.standard_normal((num_joints, 1)) - spread**2)
        phase = np.exp(2j * np.pi * rng.random((num_joints, len(orders))))
        return coefficients * (gains * strength * phase).astype(np.complex64)[joint]

    # Some joints are striped from end to end, others change within tens of rows.
    steady = rng.beta(0.7, 0.7, num_joints)[joint][:, None].astype(np.float32)
    streaks = np.sqrt(1 - steady) * smooth_noise(rng, num_rows, len(orders), style.streak_rows, 1.5)
    streaks += np.sqrt(steady) * smooth_noise(rng, num_rows, len(orders), 12 * style.streak_rows, 1.5)
    total = part(streaks, style.streak_share, decay * beam, 0.2)
    low = orders ** -(style.streak_slope + 0.8)
    total += part(smooth_noise(rng, num_rows, len(orders), style.wobble_rows, 1.5), style.wobble_share, low, 0.3)
    total += _lattice(rng, style, joint, orders)
    total = _step(rng, total, joint)
    total *= np.exp(1j * np.outer(rotation * (2 * np.pi / COLUMNS_PER_TURN), orders)).astype(np.complex64)
    total += part(_white_noise(rng, num_rows, len(orders)), style.row_share, decay**0.65, 0.2)
    angle = np.outer(orders, np.arange(num_columns)) * (2 * np.pi / num_columns)
    waves = (total.real @ np.cos(angle).astype(np.float32)) - (total.imag @ np.sin(angle).astype(np.float32))
    return waves * np.float32(style.texture_std)


def _lattice(rng: np.random.Generator, style: Style, joint: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Samples coefficients (H, K) complex64 of the helical pattern, with the same spots in all joints.

    Spots are narrow peaks (order, frequency) of the spectrum.
    """
    num_joints, num_spots = int(joint[-1]) + 1, len(style.lattice_orders)
    # Gamma(2) has the second moment 6: every spot gets its fraction of the lattice's variance on average.
    strength = rng.gamma(2.0, 1 / np.sqrt(6), (num_joints, num_spots)) * np.sqrt(2 * style.lattice_share / num_spots)
    strength /= np.sqrt(style.lattice_orders / style.lattice_orders.mean())
    strength *= np.exp(-0.5 * (style.lattice_orders / style.beam_order) ** 2)
    jitter = 1 + 0.03 * rng.standard_normal((num_joints, num_spots))
    mirrored = np.where(rng.random((num_joints, 1)) < 0.15, -1.0, 1.0)
    frequency = style.lattice_frequencies * jitter * mirrored
    start = 2 * np.pi * rng.random((num_joints, num_spots))
    rows = np.arange(len(joint), dtype=np.float64)[:, None]
    wander = np.cumsum(smooth_noise(rng, len(joint), num_spots, 20.0).real, axis=0) * 0.07
    spots = strength[joint] * np.exp(1j * (2 * np.pi * frequency[joint] * rows + start[joint] + wander))
    out = np.zeros((len(joint), len(orders)), dtype=np.complex64)
    for m, order in enumerate(style.lattice_orders):
        if order <= len(orders):
            out[:, order - 1] += spots[:, m]
    return out


def _step(rng: np.random.Generator, coefficients: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Makes the pattern advance in steps of some rows in one joint of twelve (stick and slip)."""
    num_joints = int(joint[-1]) + 1
    stepped = rng.random(num_joints) < 1 / 12
    period = rng.integers(8, 15, num_joints)[joint]
    rows = np.arange(len(joint))
    held = np.maximum(rows - rows % period, 0)
    return np.where(stepped[joint][:, None], coefficients[held], coefficients)
