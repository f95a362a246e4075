"""Small rhymed poems from a seeded grammar: iambic lines of four beats, a table of rhymes, a scene for each poem.

Every line has eight syllables and ends on a word of a rhyme group; a stanza of four lines rhymes in pairs
(AABB) or crosswise (ABAB). No line occurs twice in the text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from llm.corpora.articles import with_articles

SEED = 11
COUNT = 600  # poems

# Words of one sound, all nouns of one syllable that may follow "the".
RHYMES = (
    "night light kite knight height sight", "sea tree bee key tea knee", "moon spoon tune dune noon loon", "day bay hay clay way tray",
    "star jar car tar", "rain train lane grain crane vane", "snow crow bow glow row toe", "hill mill quill gill sill frill",
    "sand hand land band", "stone bone throne cone", "door shore floor oar core", "bell shell well spell dell", "boat coat goat note moat",
    "king ring wing spring string swing thing", "clock rock sock lock flock dock", "bread bed thread sled shed head", "book brook hook nook rook",
    "lake cake snake rake drake", "town crown gown clown", "cat hat mat bat rat", "cloud crowd shroud", "air chair bear stair hare pear fair",
    "toad road load code", "tide bride slide side", "fan man pan van", "leaf reef thief sheaf", "pie sky fly sty", "cup pup sup", "pond wand bond",
    "crumb drum plum thumb", "jam lamb ram clam", "dish fish wish", "rose nose hose", "wheat street seat sheet", "frog log dog bog", "gate plate slate crate",
    "mouse house grouse blouse", "sail tail snail whale gale pail", "kiss bliss hiss", "dream stream cream team beam", "wall ball hall shawl stall",
)  # fmt: skip
RHYMES = tuple(tuple(group.split()) for group in RHYMES)

# A scene: its nouns (one syllable), their plurals, adjectives (two syllables, the first one strong), and what is done there.
SCENES = {
    "sea": dict(
        one="gull wave ship crab seal foam salt mast wind deck", many="gulls waves ships crabs seals winds nets pearls ropes crews",
        two="silver salty windy rolling misty stormy distant gentle sunny golden", do="drift sail rise float dip glide roll call wait turn",
        to="find love hear guard greet trust chase keep",
    ),
    "woods": dict(
        one="fox deer fern moss oak owl wren elm stag path", many="ferns owls elms wrens oaks deer moths thorns nuts leaves",
        two="mossy shady hidden leafy gentle ancient sleepy quiet tangled secret", do="hide creep rest hush wait roam climb call sleep hum",
        to="find seek know hear watch guard love miss",
    ),
    "sky": dict(
        one="dawn mist dusk breeze storm lark sun dew frost hawk", many="clouds larks stars storms hawks dawns beams flakes winds sparks",
        two="shining distant silent purple frosty rosy golden endless early twinkling", do="rise shine drift fall glow fade burn spin soar dance",
        to="light watch warm greet touch seek paint praise",
    ),
    "kitchen": dict(
        one="pot broth crust flame bowl salt mint steam broom cook", many="pots pans jars bowls plates crumbs spoons knives eggs buns",
        two="copper cosy smoky buttered toasty honeyed spotless merry greasy peppered", do="boil hum sing bake stir rest steam clink shine wait",
        to="taste stir share love want fill hide bring",
    ),
    "garden": dict(
        one="bean worm bud rake mole thrush seed pea vine spade", many="beans worms buds seeds vines ants peas weeds blooms roots",
        two="muddy sunny blooming tiny dewy tender rosy fragrant crooked patient", do="grow dig climb bloom sprout crawl wake dream lean stretch",
        to="greet love plant hear trim guard feed find",
    ),
    "town": dict(
        one="lamp bridge bench square roof clerk bus school park sign", many="lamps shops roofs bells cars trams clerks kids doors signs",
        two="busy crowded narrow noisy dusty shining merry little crooked rainy", do="rush ring talk run stop shop wait glow laugh turn",
        to="pass paint sweep find hear meet thank lose",
    ),
}  # fmt: skip
SCENES = {
    name: {part: tuple(words.split()) for part, words in scene.items()} for name, scene in SCENES.items()
}
WORDS = {
    "soft": (
        "soft",
        "warm",
        "cold",
        "bright",
        "still",
        "kind",
        "sweet",
        "slow",
        "dark",
        "light",
        "deep",
        "dear",
    ),
    "place": ("beside", "beneath", "above", "behind", "around", "before", "beyond", "across"),
    "past": ("came", "went", "ran", "crept", "flew", "walked", "turned", "slipped"),
}

# Lines of four iambic beats; {R} is the rhyme.
LINES = (
    "The {one} will {do} {place} the {R}",
    "A {two} {one} {past} to the {R}",
    "And {many} may {do} {place} the {R}",
    "I saw a {one} {place} the {R}",
    "With {two} {one} and {two} {R}",
    "Oh {do}, my {one}, and {to} the {R}",
    "The {one} is {soft} to every {R}",
    "There is no {one} without a {R}",
    "Who told the {one} to {to} the {R}?",
    "So {soft} the {one}, so {soft} the {R}",
    "A {one}, a {one}, a {two} {R}",
    "Come, little {one}, and {to} the {R}",
    "The {two} {many} will {to} the {R}",
    "When {many} can {do}, we {to} the {R}",
    "My {one} and I, we {to} the {R}",
    "And all the {many} will {to} the {R}",
    "It {past} {place} the {two} {R}",
    "No {one} can {do} without the {R}",
)


def rhymes(first: str, second: str) -> bool:
    """Whether two different words share a rhyme group."""
    return first != second and any(first in group and second in group for group in RHYMES)


def last_word(line: str) -> str:
    return re.findall(r"[a-z]+", line.lower())[-1]


class Poet:
    """Writes poem after poem and never the same line again."""

    def __init__(self, seed: int = SEED):
        self.random = random.Random(seed)
        self.written: set[str] = set()

    def pick(self, options):
        """One of `options`; only random() is used, which every Python version draws alike."""
        return options[int(self.random.random() * len(options))]

    def line(self, scene: dict[str, tuple[str, ...]], rhyme: str, shapes: set[str]) -> str:
        """A new line that ends on `rhyme`; its shape is not one of `shapes`, the shapes of the stanza so far."""
        while True:
            shape = self.pick(LINES)
            if shape in shapes:
                continue
            said = {rhyme}

            def filler(match: re.Match, said: set[str] = said) -> str:
                slot = match[1]
                if slot == "R":
                    return rhyme
                word = self.pick((scene | WORDS)[slot])
                while word in said:
                    word = self.pick((scene | WORDS)[slot])
                said.add(word)
                return word

            text = re.sub(r"\{(\w+)\}", filler, shape)
            text = with_articles(text)
            if text not in self.written:
                self.written.add(text)
                shapes.add(shape)
                return text

    def stanza(self, scene: dict[str, tuple[str, ...]]) -> str:
        """Four lines that rhyme in pairs or crosswise."""
        pairs = []
        while len(pairs) < 2:
            group = self.pick(RHYMES)
            first, second = self.pick(group), self.pick(group)
            if first != second and not any(
                rhymes(first, other) or first in pair for pair in pairs for other in pair
            ):
                pairs.append((first, second))
        (a, b), (c, d) = pairs
        ends = (a, b, c, d) if self.random.random() < 0.5 else (a, c, b, d)
        shapes: set[str] = set()
        lines = [self.line(scene, end, shapes) for end in ends]
        marks = (",", ";" if self.random.random() < 0.3 else ",", ",", ".")
        return "\n".join(line if line[-1] == "?" else line + mark for line, mark in zip(lines, marks))

    def poem(self) -> str:
        """Two stanzas of one scene."""
        scene = SCENES[self.pick(tuple(SCENES))]
        return f"{self.stanza(scene)}\n\n{self.stanza(scene)}"


def poems(count: int = COUNT, seed: int = SEED) -> Iterator[str]:
    """`count` poems; the same ones for the same seed on every Python version."""
    poet = Poet(seed)
    for _ in range(count):
        yield poet.poem()


def make(count: int = COUNT, seed: int = SEED) -> tuple[str, dict[str, str]]:
    """The text of datasets/verse.txt, and what was measured on it."""
    text = "\n\n".join(poems(count, seed)) + "\n"
    lines = [line for line in text.split("\n") if line]
    measured = {
        "poems": f"{count:,} (seed {seed})",
        "lines": f"{len(lines):,}, {len(set(lines)):,} of them distinct",
        "characters": f"{len(text):,}, {len(set(text))} of them distinct",
        "word types": f"{len(set(re.findall(r'[a-z]+', text.lower()))):,}",
    }
    return text, measured
