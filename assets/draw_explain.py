"""
Takes the picture of tools/explain.py's page that README.md shows, with the model that comes along and a headless
Chromium. Writes explain.png beside this file. Needs playwright and Pillow, which requirements-dev.txt brings.

    python assets/draw_explain.py
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

here = Path(__file__).resolve().parent
picture_path = here / 'explain.png'

with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
    # the page
    page_path = Path(folder) / 'explain.html'
    command = [
        sys.executable, here.parent / 'tools' / 'explain.py',
        f'--out_dir={here / "eca-mini"}',
        f'--to={page_path}',
        '--start=Meu caro amigo',   # as in README.md
        '--device=cpu',
    ]
    subprocess.run(command, check=True)

    # what a reader in Portuguese sees, with a head that looks at spaces, and each part measured
    chromium = shutil.which('chromium') or p.chromium.executable_path
    browser = p.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu'])
    page = browser.new_page(locale='pt-BR', viewport={'width': 1280, 'height': 900}, device_scale_factor=2,
                            bypass_csp=True)   # for wait_for_function, which evaluates a string in the page
    page.set_default_timeout(300_000)   # ranking takes a minute and more where other programs run, too
    page.goto(page_path.as_uri())
    page.wait_for_function('isReady')
    page.evaluate('choose(2, 0); select(32)')
    page.locator('#rank').click()
    page.wait_for_function('!isRanking', polling=500)   # ms; frames stop coming where there is no screen
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    screenshot = page.screenshot(full_page=True)

# 96 colours are enough, and make a small file
picture = Image.open(io.BytesIO(screenshot)).convert('RGB')
picture = picture.quantize(96, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
picture.save(picture_path, optimize=True)
print(f'saved {picture_path}, {picture_path.stat().st_size / 1000:.0f} KB')
