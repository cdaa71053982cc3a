"""Draws the pictures of the site: python docs/diagrams.py [SEARCH].

The blocks and the network are read from real layers, so that a picture shows what is computed.
`report.png` is a photograph, by Chromium, of the report in the folder of a search:

    python -m keras_resblocks search digits --max-params 100000 --stages 2
    python docs/diagrams.py digits_search
"""

import html
import pathlib
import shutil
import sys

import keras

import keras_resblocks as kr
from keras_resblocks.layers.wiring import Chain

IMAGES = pathlib.Path(__file__).with_name("images")

FILLS = {"Conv2D": "#dbe7fb", "BatchNormalization": "#dff3e3", "Activation": "#fdeccd"}
WIDTH, HEIGHT, GAP = 170, 30, 14  # of a box, and between boxes
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1c2430;text-anchor:middle}"
    ".title{font-weight:600;font-size:16px}.chain{font-size:13px;font-style:italic;fill:#52606d}"
    ".box{stroke:#52606d}.group{fill:none;stroke:#9aa5b1;stroke-dasharray:4 3}"
    ".line{fill:none;stroke:#1c2430;stroke-width:1.5;marker-end:url(#arrow)}"
)


class Drawing:
    """An SVG picture, built from its elements."""

    def __init__(self, width, height, about):
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{html.escape(about)}">\n'
            f"<style>{STYLE}</style>\n"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#1c2430"/></marker>'
            "</defs>\n"
        )
        self._elements = []

    def box(self, x, y, text, fill="#fff", width=WIDTH):
        """A box with its top at `y`, centered on `x`."""
        self._elements.append(
            f'<rect class="box" x="{x - width / 2:g}" y="{y}" width="{width}" height="{HEIGHT}" '
            f'rx="4" fill="{fill}"/>'
        )
        self.text(x, y + 20, text)

    def text(self, x, y, text, kind="", anchor="middle"):
        self._elements.append(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" style="text-anchor:{anchor}">'
            f"{html.escape(text)}</text>"
        )

    def group(self, x, y, width, height, name):
        """A dashed frame, with its name on the outside at the upper left."""
        self._elements.append(
            f'<rect class="group" x="{x:g}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        )
        self.text(x + 4, y - 5, name, "chain", "start")

    def line(self, *points):
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._elements.append(f'<polyline class="line" points="{path}"/>')

    def circle(self, x, y, text):
        self._elements.append(f'<circle class="box" cx="{x:g}" cy="{y}" r="13" fill="#fff"/>')
        self.text(x, y + 5, text)

    def svg(self):
        return self._head + "\n".join(self._elements) + "\n</svg>\n"


def parts(chain):
    """The Keras layers of a chain, but for those that pad."""
    for part in chain.layers:
        inner = part if isinstance(part, Chain) else getattr(part, "chain", None)
        if inner is not None:
            yield from parts(inner)
        elif not isinstance(part, keras.layers.ZeroPadding2D):
            yield part


def label(layer):
    """What a layer does, in a few words."""
    if isinstance(layer, keras.layers.Conv2D):
        strides = f", stride {layer.strides[0]}" if layer.strides[0] > 1 else ""
        return f"{'x'.join(map(str, layer.kernel_size))} conv, {layer.filters}{strides}"
    return {"BatchNormalization": "batch norm", "Activation": "ReLU"}[type(layer).__name__]


def draw_block(drawing, title, block):
    """The four chains of a built block; the height that they take."""
    chains = {
        name: list(parts(getattr(block, name))) for name in ("entry", "residual", "bypass", "exit")
    }
    main, side = 96, 286
    step = HEIGHT + GAP
    drawing.text(190, 24, title, "title")
    drawing.text(main, 52, "input")
    y = 60

    def column(name, x, y):
        """The boxes of a chain from `y` on; where it ends."""
        height = len(chains[name]) * step + 2
        drawing.group(x - 92, y + 24, 184, height, name)
        for layer in chains[name]:
            top = y + 24 + (GAP + 2) // 2
            drawing.box(x, top, label(layer), FILLS[type(layer).__name__])
            y += step
        return y + 26

    def joined(x, y, count):
        """Arrows between the boxes of a column that begins at `y`."""
        for number in range(count - 1):
            top = y + 24 + (GAP + 2) // 2 + number * step + HEIGHT
            drawing.line((x, top), (x, top + GAP))

    def add(name, x, y, source):
        count = len(chains[name])
        if not count:
            return y
        joined(x, y, count)
        end = column(name, x, y)
        drawing.line(*source, (x, y + 24 + (GAP + 2) // 2))
        return end

    source = [(main, 58)]
    if chains["entry"]:
        y = add("entry", main, y, source)
        source = [(main, y - 8)]
        y += 8
    fork = source[0][1] + 12  # a shortcut with weights reads what the entry made
    top = y + 10
    end = add("residual", main, top, source)
    shortcut_end = add("bypass", side, top, [(main, fork), (side, fork)])
    total = end + 34
    drawing.line((main, end - 8), (main, total - 13))
    drawing.line((side, shortcut_end - 8), (side, total), (main + 13, total))
    drawing.circle(main, total, "+")
    y = total + 13
    if chains["exit"]:
        y = add("exit", main, y + 2, [(main, y)]) - 8
    drawing.line((main, y), (main, y + 26))
    drawing.text(main, y + 42, "output")
    return y + 54


def block_picture(block_class, filters, preactivation):
    """A block that halves the resolution."""
    block = block_class(filters, strides=2, preactivation=preactivation)
    block.build((None, 32, 32, 64))
    form = "pre-activation (v2)" if preactivation else "post-activation (v1)"
    title = f"{block_class.__name__}, {form}"
    height = draw_block(Drawing(0, 0, ""), title, block)
    drawing = Drawing(382, height, f"The chains of a {title}")
    draw_block(drawing, title, block)
    return drawing.svg()


def network_picture(name):
    """A network by stage: its blocks, and the shape of what each stage outputs."""
    model = kr.create_model(name)
    rows = {}
    for layer in model.layers[1:]:
        rows.setdefault(layer.name.partition("_")[0], []).append(layer)
    drawing = Drawing(640, 42 + 52 * len(rows), f"{name} by stage")
    drawing.text(320, 24, f"{name}, for {'x'.join(map(str, model.input_shape[1:]))}", "title")
    for number, (stage, layers) in enumerate(rows.items()):
        y = 46 + 52 * number
        drawing.text(10, y + 20, stage, "chain", "start")
        for place, layer in enumerate(layers):
            x = 168 + place * 236
            drawing.box(x, y, described(layer), fill(layer), width=210)
            if place:
                drawing.line((x - 131, y + 15), (x - 105, y + 15))
        shape = "x".join(map(str, layers[-1].output.shape[1:]))
        drawing.text(630, y + 20, shape, "chain", "end")
        if number + 1 < len(rows):
            turn = y + HEIGHT + 8
            drawing.line((x, y + HEIGHT), (x, turn), (168, turn), (168, y + 52))
    return drawing.svg()


def described(layer):
    """A layer of a network, in a few words."""
    config = layer.get_config()
    strides = config.get("strides", 1)
    stride = f", stride {strides}" if strides != 1 else ""
    if "kernel_size" in config and "shortcut" not in config:
        size = config["kernel_size"]
        return f"{size}x{size} conv, {config['filters']}{stride}"
    if "pool_size" in config:
        size = config["pool_size"]
        return f"{size}x{size} {config['kind']} pool{stride}"
    if "shortcut" in config:
        return f"{type(layer).__name__}({config['filters']}{stride})"
    return f"Dense({layer.units})" if hasattr(layer, "units") else "average over positions"


def fill(layer):
    """The color of a layer's box."""
    return FILLS["Conv2D"] if layer.weights else "#fff"


PICTURES = {
    "residual-block-v1.svg": lambda: block_picture(kr.ResidualBlock, 128, False),
    "residual-block-v2.svg": lambda: block_picture(kr.ResidualBlock, 128, True),
    "bottleneck-block-v1.svg": lambda: block_picture(kr.BottleneckBlock, 32, False),
    "bottleneck-block-v2.svg": lambda: block_picture(kr.BottleneckBlock, 32, True),
    "resnet18.svg": lambda: network_picture("resnet18"),
}


def photograph(page, path):
    """Writes a picture of the first screen of a page."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        frame = browser.execute_script("return window.outerHeight - window.innerHeight")
        browser.set_window_size(1100, 718 + frame)  # down to the first row of charts
        browser.get(page.absolute().as_uri())
        browser.save_screenshot(path)


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")
    for folder in sys.argv[1:]:
        photograph(pathlib.Path(folder, "report", "report.html"), IMAGES / "report.png")
