"""The invented people of the demonstration, and their conversations: a script for `People.play`.

A line begins with a role of the cast: ``a: text`` is a message to everyone, ``a* text`` one as a
bot, ``a> text`` a private one to the fake's own user, ``a@ text`` a mail. Blank lines separate
scenes.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CAST", "OPENING", "SCENES"]

CAST: Final = ("mika", "ana", "oskar", "zoe", "tariq", "lin")

OPENING: Final = """
a: good morning, everyone
b@ The minutes of last night are done. You will find them where the tea is.
b: morning, {a}! is the new bot in yet?
"""

SCENES: Final = """
a: who won last night?
b: nobody, the dice were asleep
c: speak for yourself, {b}

a: [bold]is this bold?[/bold]
b: no, {a}. it is brackets. it was brackets yesterday too

a> psst, are you really a bot?
b: what are you whispering over there, {a}

a@ Could you keep an eye on the chat while I am at lunch? There is cake in it for you.
a: back in half an hour
b: bring me a sandwich, {a}

a: does anybody know how often one may ask the server?
b: once a second
c: and if one asks twice?
b: then it answers slowly, and looks at you

a: здравствуйте! おはよう! bon dia!
b: hello {a}, are you three people today?

a@ Your library book is overdue by eleven years. Take your time.

a* reminder: the quiz starts at eight
b: i am not ready for the quiz
c: nobody is ever ready for the quiz

a: my connection dropped again
b: did you lose anything?
a: not a line. it all came once it was back, in order

a> could you tell {b} that i am not talking to them
b: {a}, we can all see you typing

a: ☕?
b: ☕
c: ☕☕

a@ Thank you for answering at three in the morning. Do you ever sleep?

a: 100 % of statistics contain a % sign
b: & an ampersand + a plus, {a}
c: you two should test software

a: good night then
b: it is morning, {a}
a: good night anyway
"""
