"""
Draws the architecture of our small GPT (the picture at the top of README.md) with matplotlib alone.
Writes transformers.jpeg beside this file. Run it again whenever the default model changes:

    python assets/draw_transformer.py
"""

import os

import matplotlib.pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path

# every tone is (edge, fill): edges near the Okabe-Ito colours (colour-blind safe), fills pale for print
GREEN = ('#00795A', '#DDF2EA')
BLUE = ('#0072B2', '#DCECF7')
ORANGE = ('#C25400', '#FCE8D8')
GREY = ('#5B626B', '#ECEEF1')
WHITE = ('#5B626B', '#FFFFFF')
PANEL = ('#C3C8CE', '#F8F9FA')

# colours of words
INK = '#1F2328'
SOFT = '#4A5058'

# sizes of words, in points; at 900 pixels wide, anything under 9 is hard to read
BIG = 12.5
MID = 11
SMALL = 9.5

# one unit is a hundredth of an inch, so 1200 x 767 units at 150 dots per inch make 1800 x 1150 pixels
plt.switch_backend('Agg') # only a file is written, so no screen is needed
fig = plt.figure(figsize=(12, 1150 / 150), dpi=150, facecolor='white')
ax = fig.add_axes([0, 0, 1, 1])
ax.set(xlim=(0, 1200), ylim=(0, 1150 / 1.5))
ax.axis('off')

# helpers: x, y is the lower left corner of a box; arrows go through points and end exactly on the last one
def text(x, y, s, size=SMALL, color=INK, ha='center', **kw):
    va = 'center' if 'rotation' in kw or '\n' in s else 'center_baseline' # the latter ignores the tail of ç, g, p
    ax.text(x, y, s, fontsize=size, color=color, ha=ha, va=va, zorder=5, **kw)

def box(x, y, w, h, tone, title='', note='', size=MID, radius=6, lw=1.3, z=3):
    style = f'round,pad=0,rounding_size={radius}'
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, ec=tone[0], fc=tone[1], lw=lw, zorder=z))
    text(x + w / 2, y + h / 2 + (9 if note else 0), title, size)
    text(x + w / 2, y + h / 2 - 10, note, SMALL, SOFT)

def arrow(*points, label='', left='', color=INK, lw=1.4, style='-|>', **kw):
    ax.add_patch(FancyArrowPatch(path=Path(points), arrowstyle=style, mutation_scale=8 + 2 * lw, color=color, lw=lw,
                                 joinstyle='round', capstyle='butt', zorder=4, **kw))
    (x0, y0), (x1, y1) = points[-2:]
    text((x0 + x1) / 2 + 9, (y0 + y1) / 2, label, SMALL, SOFT, ha='left')
    text((x0 + x1) / 2 - 9, (y0 + y1) / 2, left, SMALL, SOFT, ha='right')

def plus(x, y):
    ax.add_patch(Circle((x, y), 10, ec=INK, fc='white', lw=1.4, zorder=5))
    ax.plot([x - 5, x + 5], [y, y], [x, x], [y - 5, y + 5], color=INK, lw=1.6, zorder=6)

# title and column headings
text(40, 733, 'Um GPT pequeno, por dentro', 20, ha='left', weight='bold')
text(40, 706, 'Lê Eça de Queiroz caractere por caractere e prevê o próximo: 6 blocos, 6 cabeças de atenção, '
     '384 canais, cerca de 10,8 milhões de parâmetros', 10.5, SOFT, ha='left')
for x, s in (40, '1. O modelo inteiro'), (480, '2. Um bloco, ampliado'), (876, '3. A máscara causal'):
    text(x, 672, s, BIG, ha='left', weight='bold')

# left column: the whole model, from the text (bottom) to the prediction (top)
C = 250 # centre of the main line
TOK = 155 # of the token embedding
POS = 345 # of the position embedding
for i, c in enumerate('Meu caro am'.replace(' ', '␣')): # a blank tile would look like a mistake
    box(74 + 22.5 * i, 32, 19, 22, WHITE, c, radius=3, lw=0.8)
box(70, 28, 252, 30, GREY, z=2)
text(430, 43, 'texto, T = 11', ha='right', color=SOFT)
box(70, 76, 170, 27, WHITE, 'ids (0 a 144)', size=10)
box(260, 76, 170, 27, WHITE, 'posições (0 a T − 1)', size=10)
box(70, 129, 170, 44, GREEN, 'embedding de token', '145 × 384', 10)
box(260, 129, 170, 44, GREEN, 'embedding de posição', '256 × 384', 10)
arrow((TOK, 58), (TOK, 76))
arrow((TOK, 103), (TOK, 129), label='B × T')
arrow((POS, 103), (POS, 129), label='T ≤ 256')
arrow((TOK, 173), (TOK, 199), (C - 10, 199))
arrow((POS, 173), (POS, 199), (C + 10, 199))
plus(C, 199)
arrow((C, 209), (C, 236), label='B × T × 384')
box(C - 100, 236, 200, 26, GREY, 'dropout')
arrow((C, 262), (C, 292), label='B × T × 384')
for d in 10, 5, 0: # the sheets behind say that the block is repeated
    box(C - 135 + d, 292 + d, 270, 92, PANEL if d else WHITE, radius=8)
box(C - 121, 302, 160, 32, BLUE, 'atenção causal')
box(C - 121, 342, 160, 32, ORANGE, 'MLP')
text(C + 88, 347, '× 6', 22, weight='bold')
text(C + 88, 318, 'blocos', MID, SOFT)
arrow((C, 394), (C, 422), label='B × T × 384')
box(C - 100, 422, 200, 26, GREY, 'LayerNorm final')
arrow((C, 448), (C, 470))
box(C - 100, 470, 200, 44, GREEN, 'linear 384 → 145', 'logits')
arrow((C, 514), (C, 540), label='B × T × 145')
box(C - 100, 540, 200, 26, GREY, 'softmax')
arrow((C, 566), (C, 588))
arrow((C - 100, 492), (46, 492), (46, 151), (70, 151), color=GREEN[0], style='-', linestyle=(0, (4, 2)))
text(62, 330, 'mesmos pesos (weight tying)', color=GREEN[0], rotation=90)
box(70, 588, 360, 66, WHITE)
text(84, 621, 'probabilidade do\npróximo caractere\n(um exemplo)', ha='left', linespacing=1.35)
for i, (c, p) in enumerate(zip('ioabep', (34, 15, 10, 6, 4, 3))): # made up: only their order matters
    ax.add_patch(Rectangle((236 + 32 * i, 613), 20, p, fc=GREEN[0], zorder=4))
    text(246 + 32 * i, 602, c, MID)

# middle column: one block; the wedge ties it to its place in the model
ax.add_patch(Polygon([(395, 302), (480, 28), (480, 654), (395, 394)], fc='#EFF1F4', ec='none', zorder=1))
box(480, 28, 356, 626, PANEL, radius=10)
M = 682 # main line
L = 546 # left edge of its boxes
W = 272 # their width

def half(y, tone, name, english, layers, shapes, remarks):
    """Half a block, x + f(LayerNorm(x)), from y up. layers, from the bottom up; shapes and remarks between them."""
    box(L, y + 46, W, 26, GREY, 'LayerNorm')
    arrow((M, y + 72), (M, y + 88))
    box(L, y + 88, W, 176, tone)
    text(M, y + 248, name, MID, weight='bold')
    text(M, y + 231, english, color=SOFT)
    for i in range(3):
        box(L + 10, y + 96 + 48 * i, W - 20, 26, (tone[0], 'white'), layers[i], size=10, lw=1)
    for i in range(2):
        arrow((M, y + 122 + 48 * i), (M, y + 144 + 48 * i), label=shapes[i], left=remarks[i])
    arrow((M, y + 264), (M, y + 276))
    arrow((M, y + 26), (512, y + 26), (512, y + 286), (M - 10, y + 286), lw=2.4)
    ax.add_patch(Circle((M, y + 26), 3.5, color=INK, zorder=5)) # the dot says: the same x goes both ways
    plus(M, y + 286)
    text(497, y + 156, 'conexão residual (skip connection)', rotation=90)

arrow((M, 28), (M, 74), label='B × T × 384')
half(28, BLUE, 'atenção causal, 6 cabeças', '(causal self-attention)',
     layers=('linear 384 → 3 × 384', 'softmax(QKᵀ / √64 + máscara) V', 'linear 384 → 384'),
     shapes=('B × 6 × T × 64', 'B × T × 384'),
     remarks=('Q, K e V', 'cabeças unidas'))
arrow((M, 324), (M, 366))
half(320, ORANGE, 'MLP', '(feed-forward)',
     layers=('linear 384 → 1536', 'GELU', 'linear 1536 → 384'),
     shapes=('B × T × 1536', 'B × T × 1536'),
     remarks=('', ''))
arrow((M, 616), (M, 654), label='B × T × 384')

# right column: the causal mask, and what the letters stand for
box(876, 262, 288, 392, PANEL, radius=10)
arrow((L + W - 10, 185), (856, 185), (856, 490), (876, 490), color=BLUE[0], linestyle=(0, (4, 2)))
word = 'Meu␣caro'
X = 942 # left edge of the mask
Y = 592 # its upper edge
S = 26 # side of one of its squares
text(X + 4 * S, 634, 'quem é visto (key)', color=SOFT)
text(900, Y - 4 * S, 'quem olha (query)', color=SOFT, rotation=90)
for i, c in enumerate(word):
    text(X + S * (i + 0.5), 608, c, MID)
    text(X - 15, Y - S * (i + 0.5), c, MID)
    for j in range(len(word)):
        color = BLUE[0] if j <= i else 'white'
        ax.add_patch(Rectangle((X + S * j, Y - S * (i + 1)), S, S, fc=color, ec=PANEL[0], zorder=4))
for y, color, s in (360, BLUE[0], 'vê: a si mesmo e os anteriores'), (336, 'white', 'não vê: os que vêm depois'):
    ax.add_patch(Rectangle((898, y - 7), 14, 14, fc=color, ec='#8A9199', zorder=4))
    text(922, y, s, ha='left')
text(898, 294, 'A máscara soma −∞ aos escondidos:\napós o softmax, peso zero.', ha='left', linespacing=1.35)
text(876, 225, 'Legenda', BIG, ha='left', weight='bold')
box(876, 28, 288, 180, PANEL, radius=10)
legend = (
    ('B', 'sequências no lote (batch)'),
    ('T', 'caracteres lidos, T ≤ 256'),
    ('145', 'caracteres distintos'),
    ('384', 'canais por caractere'),
    ('6 × 64', 'cabeças × canais = 384'),
)
for i, (k, s) in enumerate(legend):
    text(898, 184 - 32 * i, k, 10.5, ha='left', weight='bold')
    text(966, 184 - 32 * i, s, ha='left')

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'transformers.jpeg')
fig.savefig(out, dpi=150, pil_kwargs={'quality': 88, 'optimize': True})
print(f'saved {out}')
