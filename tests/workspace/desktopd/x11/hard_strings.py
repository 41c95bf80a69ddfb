# ruff: noqa: RUF001  # characters that look like others are what this is about
"""A hundred texts that are hard to type, by name."""

from __future__ import annotations

import random
from collections.abc import Iterable


def _every(*bounds: int) -> str:
    """The characters from each odd bound to the next, both included."""
    pairs = zip(bounds[::2], bounds[1::2], strict=True)
    return "".join(chr(code) for first, last in pairs for code in range(first, last + 1))


def _shuffled(characters: Iterable[str], seed: int) -> str:
    mixed = list(characters)
    random.Random(seed).shuffle(mixed)
    return "".join(mixed)


HARD_STRINGS: dict[str, str] = {
    # On most keyboards, and what is between the keys.
    "capitals": "SPHINX OF BLACK QUARTZ, JUDGE MY VOW",
    "changing case": "aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPqQrRsStTuUvVwWxXyYzZ",
    "ascii": _every(0x20, 0x7E),
    "ascii backwards": _every(0x20, 0x7E)[::-1],
    "ascii shuffled": _shuffled(_every(0x21, 0x7E) * 2, 1),
    "punctuation": "~!@#$%^&*()_+{}|:\"<>?`-=[]\\;',./",
    "repeated": "aaaaaaaaaaAAAAAAAAAA          ..........",
    "doubled": "bookkeeper  assess  success!!  ::  //  \\\\  ++  --",
    "numbers": "3.14159 1,000,000 0x7F 1e-9 007 ½ ¼ ¾ ² ³ ¹",
    "spaces around": "   three before, two within  and three after   ",
    "shell": 'for f in "$@"; do echo "${f%.*}" | sed \'s/[^a-z]//g\' >> /dev/null; done || !!',
    "windows path": r"C:\Users\Jörg\Desktop\näher.txt",
    "address": "https://user:pass@example.com:8080/a/b?q=1&r=%20#frag",
    "mail": '"Ünïcode" <o\'brien+tag@exämple.org>',
    "code": "if (a[i] <= b && !c) { return ~x ^ (y << 3) | z; } // #1 @foo",
    "json": '{"k\\u00e9y": ["v\\"1", null, -0.5e+3], "ключ": "值"}',
    "html": "<p class='x'>&lt;b&gt; &amp; &#39;</p><!-- -- -->",
    "tex": r"$\sum_{i=0}^{n} \frac{x_i^2}{\sqrt{2\pi}}$ \% \_ \&",
    "regular expression": r"^(?:[\w.+-]+)@(?P<host>[^\s@]{1,64})\.(\d+)?$",
    "dead keys alone": "^ ` ´ ~ ¨ ¸ ˇ ˘ ˙ ˚ ˝ ˛ ' \"",
    "dead keys before letters": "^a `e ´i ~n ¨u ¸c ˇs 'e \"o ^^ `` ~~",
    "quotation marks": "“double” ‘single’ „low“ «guillemets» ‹one› 「角」『二重』",
    "dashes": "hyphen-minus - hyphen ‐ figure ‒ en – em — bar ― minus −",
    "latin-1": _every(0xA1, 0xAC, 0xAE, 0xFF),
    # Alphabets.
    "german": "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg. ẞ",
    "french": "Dès Noël, où un zéphyr haï me vêt de glaçons würmiens… œuvre Æsir",
    "spanish": "¿El pingüino Wenceslao? ¡Año, señor, kilómetros! ª º",
    "portuguese": "À noite, vovô Kowalsky vê o ímã cair no pé do pinguim. Ações",
    "polish": "Zażółć gęślą jaźń. ZAŻÓŁĆ GĘŚLĄ JAŹŃ.",
    "czech": "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "hungarian": "Árvíztűrő tükörfúrógép ÁRVÍZTŰRŐ TÜKÖRFÚRÓGÉP",
    "turkish": "Pijamalı hasta yağız şoföre çabucak güvendi. İIıi",
    "romanian": "Gheorghe, obezul, a reuşit să obțină jucându-se un flux în Quebec",
    "icelandic": "Kæmi ný öxi hér, ykist þjófum nú bæði víl og ádrepa. Ð Þ",
    "welsh": "Parciais fy jac codi baw hud llawn dŵr ger tŷ Mabon",
    "vietnamese": "Tiếng Việt: Đặng Thị Thuỳ, những đường phố cũ kỹ ở Huế, ẵẫẩấậ",
    "yoruba": "Ìwò̩fà ńyò̩ séji tó gbojúmó̩, ó hàn pákànpò̩",
    "ipa": "[ðə ˈnɔːθ ˈwɪnd ənd ðə ˈsʌn wə dɪsˈpjuːtɪŋ] ʘǀǃǂǁ",
    "latin extended": _every(0x100, 0x17F),
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Σίσυφος σς ΐ ΰ",
    "old greek": "ἐν ἀρχῇ ἦν ὁ λόγος, ᾧ ᾠδή ῾Ρόδος Ὦ ᾳ",
    "russian": "Съешь же ещё этих мягких французских булок, да выпей чаю. Ё",
    "ukrainian": "Чуєш їх, доцю, га? Кумедна ж ти, прощайся без ґольфів!",
    "serbian": "Љубазни фењерџија чађавог лица хоће да ми покаже штос. Ђ Ћ Џ",
    "look-alikes": "aа eе oо cс pр xх AΑА BΒВ Iꞏl1| 0OОΟ",
    "georgian": "ვეფხის ტყაოსანი შოთა რუსთაველი ႠႡႢ",
    "armenian": "Բել դղյակի ձախ ժամն օֆ ազգությանը ցպահանջ չճշտած վնաս էր եւ փառք",
    "cherokee": "ᎣᏏᏲ ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ꭰꭱꭲ",
    "amharic": "ሰማይ አይታረስ ንጉሥ አይከሰስ።",
    # From right to left.
    "hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה",
    "hebrew with points": "בְּרֵאשִׁ֖ית בָּרָ֣א אֱלֹהִ֑ים",
    "arabic": "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت — يَحظى الضَجيعُ بِها؟ ؛ ١٢٣",
    "persian": "می\u200cخواهم کتاب\u200cهایم را بخوانم. گچ پژ ۴۵۶",
    "urdu": "ٹھنڈ میں ایک قحط زدہ گاؤں سے گذرتے وقت",
    "both directions": "start שלום (123) مرحبا, end! A\u200fB\u200eC",
    "isolates": "a\u2066b\u2069 c\u2067ד\u2069 e\u2068f\u2069",
    "embeddings": "a\u202ab\u202c \u202bג\u202c \u202dd\u202c \u202ee\u202c",
    "syriac": "ܐܒܓܕ ܫܠܡܐ",
    "nko": "ߒߞߏ ߓߏ߬ߟߏ",
    # Signs that join and stack.
    "hindi": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण। क्ष त्र ज्ञ",
    "bengali": "আমি কাঁচ খেতে পারি, তাতে আমার কোনো ক্ষতি হয় না।",
    "tamil": "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் ஸ்ரீ",
    "malayalam": "അജവും ആനയും ഐരാവതവും ഗരുഡനും ന്‍റെ",
    "sinhala": "ශ්‍රී ලංකා ක්‍ෂ",
    "thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า น้ำ ก็ที่สุด",
    "khmer": "ខ្ញុំអាចញ៉ាំកញ្ចក់បាន ដោយគ្មានបញ្ហា",
    "burmese": "ကျွန်တော် ကျွန်မ မှန်စားနိုင်တယ်။",
    "tibetan": "ཤེལ་སྒོ་ཟ་ནས་ང་ན་གི་མ་རེད།",
    "mongolian": "ᠮᠣᠩᠭᠣᠯ\u180e ᠬᠡᠯᠡ\u180b",
    "decomposed": "e\u0301 u\u0308 n\u0303 A\u030a c\u0327 o\u0302\u0301 \u1112\u1161\u11ab",
    "composed beside decomposed": "é e\u0301 Å A\u030a \u212b ñ n\u0303 한 \u1112\u1161\u11ab",
    "stacked": "Z\u0351\u036b\u0343a\u0325\u0300\u0301l\u0334\u0335g\u0353\u0354o\u0361\u0362",
    # Han, kana, hangul.
    "chinese": "視野無限廣,窗外有藍天。微風迎客,軟語伴茶",
    "simplified": "天地玄黄,宇宙洪荒。日月盈昃,辰宿列张。",
    "a poem": "床前明月光\n疑是地上霜\n举头望明月\n低头思故乡",
    "japanese": "いろはにほへと ちりぬるを 色は匂へど 散りぬるを ヴァイオリン",
    "half and full width": _every(0xFF01, 0xFF10, 0xFF21, 0xFF2A, 0xFF61, 0xFF9F),
    "korean": "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다",
    "jamo": "ㄱㄴㄷㅏㅑㅓ \u1100\u1161\u11a8",
    "many han": _every(0x4E00, 0x4E00 + 149),
    "rare han": "𠀀𠀋𠮷野家𪚥𩸽 葛󠄀 㐀㐁",
    # Emoji and what is beyond U+FFFF.
    "emoji": "🚀😀🎉🐍🦀❤☕✈☎♻",
    "family": "👨‍👩‍👧‍👦 👩‍❤️‍💋‍👨 🏳️‍🌈 🏴‍☠️ 👁️‍🗨️ 🐻‍❄️",
    "skin": "👍👍🏻👍🏼👍🏽👍🏾👍🏿 👩🏽‍🚒 🧑🏿‍🤝‍🧑🏻",
    "flags": "🇩🇪🇫🇷🇷🇺🇬🇷🇺🇸 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "keycaps": "1️⃣2️⃣#️⃣*️⃣ ☺\ufe0e ☺\ufe0f ❤\ufe0e",
    "new emoji": "\U0001fae0\U0001fae8\U0001fabf\U0001f6dc\U0001fada",
    "mathematical": "𝒜𝔅ℂ𝖣𝙀𝛼𝟘 ∀x∈ℝ ∃y: x²≥y ⟹ ∮∇·E ≠ ∅ √∞",
    "old scripts": "𐌰𐌱𐌲 𒀀𒁀 𓀀𓁐 𐎠𐎡 𐐨𐐀 𝄞𝄢",
    "symbols": "←↑→↓↔⇒ ■□▲△●○★☆ ♠♥♦♣ ♀♂ ☯ ☭ ©®™ §¶ †‡ •",
    "boxes": "┌─┬─┐│├┼┤└┴┘ ╔═╗║╚╝ ░▒▓█ ⠁⠿⣿",
    "money": "$ ¢ £ ¤ ¥ ₠ € ₹ ₺ ₽ ₿ ₪ ₫ ₩",
    "private use": "\ue000\uf8ff \U000f0000 \U0010fffd",
    # What cannot be seen.
    "spaces": "a\u2002b\u2003c\u2009d\u200ae\u202ff\u205fg\u3000h",
    "zero width": "a\u200bb\u200cc\u200dd\u2060e\u00adf\u034fg\u061ch\u2064i",
    "specials": "\ufff9a\ufffab\ufffb \ufffc \ufffd \U000e0001",
    # Keys, and length.
    "lines": "one\ntwo\r\nthree\rfour\n\nsix",
    "tabs": "a\tb\t\tc\n\td",
    "long": _shuffled("abcXYZ09,.!? äöüßéñ世界日本語한글кириллицаΩ≈🚀😀—“”€@#{}[]|\\~`" * 6, 2),
    "everything": _shuffled(
        _every(0x21, 0x7E, 0xC0, 0xFF, 0x391, 0x3A1, 0x410, 0x44F, 0x1F600, 0x1F60F), 3
    ),
}
