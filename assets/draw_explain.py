"""
Takes the picture of explain.py's page that README.md shows, with the model that comes along and a headless Chromium.
Writes explain.png beside this file. Needs playwright and Pillow, which requirements-dev.txt brings.

    python assets/draw_explain.py
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

here = Path(__file__).resolve().parent
with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
    page_path = Path(folder) / 'explain.html'
    subprocess.run([sys.executable, here.parent / 'explain.py', f'--out_dir={here / "eca-mini"}', f'--to={page_path}',
                    '--start=Meu caro amigo,\nRecebi ontem a tua carta de Lisboa', '--max_new_tokens=150',
                    '--temperature=0.6', '--seed=15', '--device=cpu'], check=True)
    chromium = shutil.which('chromium') or p.chromium.executable_path
    page = p.chromium.launch(executable_path=chromium, args=['--no-sandbox']).new_page(
        locale='pt-BR', viewport={'width': 1200, 'height': 900}, device_scale_factor=2)
    page.goto(page_path.as_uri())
    page.evaluate('choose(3, 0); pin(164)')   # this head looks for ends of lines
    page.wait_for_timeout(500)
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert('RGB')
    shot.quantize(96, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE).save(
        here / 'explain.png', optimize=True)
print(f'saved {here / "explain.png"}, {os.path.getsize(here / "explain.png") / 1000:.0f} KB')
