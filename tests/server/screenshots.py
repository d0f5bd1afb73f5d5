"""The page's pictures in the documentation: `python tests/server/screenshots.py docs/images-of-page [apn-mini]`.

With the named weights or else with the fake detector of the tests. Needs Chromium.
"""

import io
import re
import sys
from pathlib import Path
from typing import Any

from browsing import choose, launch, opened
from playwright.sync_api import expect, sync_playwright
from serving import FakeDetector, FakeExplainer, running


def screenshots(folder: Path, weights: str | None) -> None:
    """Desktop in light and dark, and a phone, of pictures that scikit-image carries."""
    import skimage.data
    from PIL import Image

    detector: Any = FakeDetector()
    explainer: Any = FakeExplainer()
    if weights:
        import apn
        from apn.backends import find_weights
        from apn.server.explainer import LazyExplainer

        detector = apn.load(weights=weights, device="cpu")
        explainer = LazyExplainer(find_weights(weights), detector)
    folder.mkdir(parents=True, exist_ok=True)
    uploads = []
    for name in ("astronaut", "coffee", "rocket"):
        buffer = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).save(buffer, "JPEG", quality=92)
        uploads.append({"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()})
    desktop = {"width": 1100, "height": 900}
    views: dict[str, tuple[int, dict[str, Any]]] = {  # name -> pictures, how the browser is set up
        "desktop": (3, {"viewport": desktop}),
        "explained": (1, {"viewport": desktop}),
        "dark": (2, {"viewport": desktop, "color_scheme": "dark"}),
        "phone": (1, {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "device_scale_factor": 1.5}),
    }
    with running(detector, explainer) as client, sync_playwright() as playwright:
        browser = launch(playwright)
        for view, (number, context) in views.items():
            for page in opened(browser, client, **context):
                choose(page, *uploads[:number])
                expect(page.get_by_role("status")).to_contain_text(f"{number} of {number} pictures", timeout=60_000)
                if view == "explained":
                    page.get_by_role("button", name="Explain").click()
                    expect(page.get_by_role("status")).to_contain_text("is explained", timeout=120_000)
                else:
                    page.get_by_role("button", name="Show the score of each part").first.click()
                page.locator("summary", has_text=re.compile("Stability|Metadata")).first.click()
                page.evaluate("scrollTo(0, 0)")  # what stays in sight would lie over the first card
                image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
                image.save(folder / f"{view}.webp", quality=90, method=6)  # a quarter of a PNG; 256 colours are too few
        browser.close()


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
