"""Checks that every link of the built pages leads to a page and a place there.

    python docs/check_links.py site

Links to other sites are left alone; but a page must not fetch anything from
there to be shown, such as a script or a font.
"""

import html.parser
import pathlib
import sys
import urllib.parse

# The kinds of `<link>` that a browser follows by itself.
FETCHED = {"stylesheet", "icon", "preconnect", "preload", "modulepreload"}


class Page(html.parser.HTMLParser):
    """The links of a page, what it fetches, and the places in it."""

    def __init__(self, path):
        super().__init__()
        self.links = set()
        self.fetched = set()
        self.places = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        """Collects what an element links to and what it is called."""
        found = dict(attributes)
        for key in ("href", "src"):
            if found.get(key) and tag != "link":
                self.links.add(found[key])
        if tag == "link" and FETCHED & set((found.get("rel") or "").split()):
            self.fetched.add(found.get("href") or "")
        if tag != "a":
            self.fetched.add(found.get("src") or "")
        self.places |= {found.get("id"), found.get("name")} - {None}


def broken(site):
    """Each link that leads nowhere, with its page.

    Args:
        site: `pathlib.Path`, the folder of the built pages.

    Returns:
        List of pairs of strings: the page, the link.
    """
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    result = []
    for path, page in pages.items():
        if path.name == "404.html":
            # Its links begin where the site will lie.
            continue
        for link in sorted(page.links):
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = path.parent / urllib.parse.unquote(parts.path)
                if link.endswith("/") or target.is_dir():
                    target /= "index.html"
                target = target.resolve()
            place = urllib.parse.unquote(parts.fragment)
            known = pages.get(target)
            if not target.exists() or (known and place not in known.places):
                result.append((str(path.relative_to(site.resolve())), link))
    return result


def fetched_from_elsewhere(site):
    """What pages fetch from other sites, as pairs like those of `broken`."""
    return [
        (str(path.relative_to(site)), address)
        for path in sorted(site.rglob("*.html"))
        for address in sorted(Page(path).fetched)
        if urllib.parse.urlsplit(address).netloc
    ]


def main():
    """Prints what is wrong; ends with 1 if anything is."""
    site = pathlib.Path(sys.argv[1])
    found = broken(site)
    for page, link in found:
        print(f"{page}: `{link}` leads nowhere.", file=sys.stderr)
    fetched = fetched_from_elsewhere(site)
    for page, address in fetched:
        print(f"{page}: fetches `{address}` to be shown.", file=sys.stderr)
    if not list(site.rglob("*.html")):
        raise SystemExit(f"`{site}` has no pages: build them first.")
    sys.exit(bool(found or fetched))


if __name__ == "__main__":
    main()
