"""Reading a page of HTML, and asking a browser how wide it is."""

import html
import html.parser
import json
import re
import shutil
import subprocess

BROWSER = next(
    filter(
        None,
        map(shutil.which, ("chromium", "chromium-browser", "google-chrome")),
    ),
    None,
)

# The page in a frame of this width; the title becomes what is wider.
FRAME = """<!doctype html><iframe width="{width}" height="900" srcdoc="{page}">
</iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument.documentElement;
  const wide = [...page.querySelectorAll("body *")].filter(
    (one) => one.getBoundingClientRect().right > page.clientWidth + 1
  );
  document.title = JSON.stringify({{
    "room": page.clientWidth,
    "width": page.scrollWidth,
    "wide": wide.map((one) => one.tagName + " " + one.className),
  }});
}};
</script>"""


class Page(html.parser.HTMLParser):
    """Tables and pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.pictures, self._table = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "table":
            self._table = self.tables.setdefault(attrs["id"], [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
        elif tag == "img":
            self.pictures.append((attrs["alt"], attrs["src"]))

    def handle_endtag(self, tag):
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        if self._table and self._table[-1]:
            self._table[-1][-1] += data.strip()


def rendered(path):
    """The page as a browser has it once it is loaded."""
    return subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def widths(path, width):
    """Room and width of the page in a frame, and the elements beyond it."""
    page = html.escape(path.read_text(encoding="utf-8"))
    framed = path.with_name(f"framed-{width}.html")
    framed.write_text(FRAME.format(width=width, page=page), encoding="utf-8")
    (title,) = re.findall("<title>(.*)</title>", rendered(framed))
    return json.loads(html.unescape(title))
