"""Sentences that people say to a voice assistant, drawn from a context-free grammar."""

from __future__ import annotations

import random
import re
from functools import lru_cache

_SLOT = re.compile(r"<(\w+)>")

# One rule per name; alternatives are separated by `|` and equally likely, `<name>` is replaced by a draw of that rule.
_RULES = {
    "sentence": "<lights> | <lights> | <climate> | <alarm> | <timer> | <calendar> | <calendar> | <call> | <message> | <shopping> |"
    " <music> | <media> | <travel> | <weather> | <reminder> | <reminder> | <device> | <device> | <booking> | <sums> |"
    " <question>",
    "lights": "<switch> the <colour> lights <where> | dim the <room> lights to <percent> | <switch> the <lamp> <where> | make the"
    " <room> <lamp> <colour> | set the <lamp> <where> to <colour> and <percent>",
    "climate": "set the <heater> <where> to <degrees> degrees | <raise> the <heater> by <digit> degrees | keep the <room> at <degrees>"
    " degrees until <time> | is it <warm> in the <room>",
    "alarm": "wake me at <time> on <weekday> | set an alarm for <time> | cancel the <time> alarm | move my alarm from <time> to <time>",
    "timer": "set a timer for <duration> | <timing> the <food> timer | give me <duration> for the <food> | add <duration> to the"
    " <food> timer",
    "calendar": "put <event> with <name> on <date> at <time> | move <event> from <weekday> to <weekday> | when is <event> with <name> |"
    " cancel <event> on <date> | what do i have on <date> | invite <name> and <name> to <event>",
    "call": "call <name> <line> | dial <digit> <digit> <digit> <digit> <digit> <digit> | call <name> and <name> at <time> | put"
    " <name> on hold | ring <name> back in <duration>",
    "message": "tell <name> that i will be <number> minutes late | ask <name> to bring <quantity> <food> | text <name> that <event> is"
    " at <time> | read the last <digit> notes from <name>",
    "shopping": "add <quantity> <food> and <quantity> <food> to the list | buy <quantity> <food> for <name> | take <food> off the list"
    " | how much <food> is left | order <quantity> <food> for <weekday>",
    "music": "play some <genre> <where> | play <genre> from nineteen <decade> | turn the <genre> <volume> | skip the <ordinal> song"
    " | play the <ordinal> song by <name> again",
    "media": "show channel <number> on the <screen> | <raise> the <screen> volume to <percent> | record the <genre> show at <time> |"
    " pause the <screen> for <duration>",
    "travel": "find a <vehicle> from <city> to <city> on <date> | how long is the <vehicle> to <city> | book <number> seats on the"
    " <time> <vehicle> to <city> | when does the next <vehicle> leave for <city>",
    "weather": "will it <rain> in <city> on <weekday> | how <warm> is it in <city> | what is the weather in <city> <day> | is there"
    " <snow> on the road to <city>",
    "reminder": "remind me to <chore> at <time> | remind <name> to <chore> on <weekday> | remind me to <chore> before <time> | did i"
    " <chore> <day>",
    "device": "<switch> the <machine> <where> | lock the <room> <door> | <open> the <room> <door> at <time> | is the <room> <door>"
    " <shut> | start the <machine> in <duration> | run the <machine> until <time>",
    "booking": "book a table for <number> at <time> | reserve <number> rooms in <city> from <date> to <date> | cancel the table on"
    " <weekday>",
    "sums": "what is <number> <operator> <number> | how many <unit> are in <number> <unit> | split <number> <money> between"
    " <number> people",
    "question": "who is at the <door> | where is my <thing> | find my <thing> <where> | what time is it in <city> | is <name> at home"
    " <day>",
    "switch": "turn on | turn off | switch on | switch off | check | test",
    "raise": "raise | lower | turn up | turn down",
    "open": "open | close | shut",
    "shut": "open | closed | shut | locked",
    "timing": "start | stop | pause | cancel | reset",
    "volume": "up | down | up a bit | down a bit | off",
    "line": "at home | at work | on the mobile | now | again | later",
    "where": "in the <room> | in the <room> | by the <door> | <level>",
    "level": "upstairs | downstairs | outside | everywhere",
    "room": "kitchen | bathroom | bedroom | hall | garage | garden | attic | cellar | office | study | nursery | pantry | porch |"
    " dining room | guest room | laundry | library | living room",
    "door": "door | gate | window | blind | shutter | curtain | safe",
    "lamp": "lamp | light | bulb | spot | candle | strip",
    "heater": "heating | heater | boiler | oven | fan | radiator",
    "machine": "washer | dryer | dishwasher | fan | heater | pump | camera | vacuum | toaster | kettle | sprinkler | speaker | printer"
    " | mower | freezer",
    "screen": "screen | radio | speaker | projector | tablet | television",
    "colour": "red | green | blue | white | yellow | orange | purple | pink | brown | grey | gold | silver",
    "genre": "jazz | rock | pop | blues | soul | folk | punk | opera | disco | reggae | country | news | chess | comedy",
    "warm": "warm | cold | cool | hot | dry | damp | windy | humid",
    "rain": "rain | snow | hail | freeze | thaw",
    "snow": "snow | ice | fog | rain | sleet | mist",
    "day": "today | tomorrow | tonight | this morning | this evening | at noon | on <weekday>",
    "weekday": "monday | tuesday | wednesday | thursday | friday | saturday | sunday",
    "month": "january | february | march | april | may | june | july | august | september | october | november | december",
    "date": "<ordinal> <month> | the <ordinal> of <month> | <weekday> the <ordinal>",
    "ordinal": "first | second | third | fourth | fifth | sixth | seventh | eighth | ninth | tenth | eleventh | twelfth | thirteenth |"
    " fourteenth | fifteenth | sixteenth | seventeenth | eighteenth | nineteenth | twentieth | twenty first | twenty third |"
    " twenty sixth | thirtieth",
    "time": "<hour> | <hour> <tens> | <hour> <teen> | <past> <hour> | <hour> in the <half_day> | <hour> <tens> <digit> | noon | midnight",
    "past": "half past | a quarter past | a quarter to | ten past | twenty to | five to",
    "half_day": "morning | afternoon | evening",
    "hour": "one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve",
    "digit": "one | two | three | four | five | six | seven | eight | nine",
    "teen": "ten | eleven | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen",
    "tens": "twenty | thirty | forty | fifty",
    "decade": "twenty | thirty | forty | fifty | sixty | seventy | eighty | ninety",
    "number": "<digit> | <teen> | <decade> | <decade> <digit> | <digit> hundred | <digit> hundred and <decade>",
    "percent": "<decade> percent | <decade> <digit> percent | <teen> percent",
    "degrees": "<teen> | twenty | twenty <digit> | sixty <digit> | seventy <digit>",
    "duration": "<number> minutes | <number> seconds | <digit> hours | an hour | half an hour | <digit> hours and <tens> minutes",
    "quantity": "a | some | <digit> | <digit> | <digit> bags of | a box of | a pound of | two tins of | a bottle of | a dozen | <digit>"
    " jars of",
    "food": "apples | pears | plums | bread | butter | cheese | milk | cream | rice | beans | peas | leeks | beef | lamb | salmon |"
    " tea | coffee | cocoa | sugar | salt | soap | pepper | paper | honey | pasta | pastry | lemons | melons | onions |"
    " olives | noodles | cherries | berries",
    "event": "lunch | dinner | the meeting | the party | the game | yoga | the exam | my flight | the dentist | tennis | training |"
    " the review",
    "name": "anna | hannah | joanna | ben | ken | glen | gwen | jen | dan | stan | ian | ryan | brian | john | joan | jean | dean |"
    " karen | erin | aaron | sharon | mary | harry | larry | barry | carrie | molly | polly | holly | paul | saul | peter |"
    " rita | nina | tina | mark | clark | laura | nora | victor",
    "city": "boston | austin | houston | london | dublin | berlin | paris | rome | madrid | lisbon | vienna | geneva | oslo | cairo"
    " | tokyo | delhi | sydney | denver | dover | chicago | toronto | manila | lima | prague | venice",
    "vehicle": "train | plane | bus | boat | ferry | taxi | tram | coach | flight",
    "chore": "feed the cat | walk the dog | pay the rent | water the plants | call <name> | clean the <room> | buy <food> | fix the"
    " <machine> | close the <door> | wash the car | mail the letter | empty the <machine> | charge the <thing> | pack the"
    " <food> | lock the <room>",
    "operator": "plus | minus | times | over",
    "unit": "feet | metres | miles | inches | ounces | grams | litres | gallons | pounds | cups | days | weeks",
    "money": "dollars | pounds | euros | yen | cents",
    "thing": "phone | keys | wallet | watch | tablet | glasses | purse | coat | hat | car | bike | laptop | ring | passport",
}


@lru_cache(maxsize=1)
def _alternatives() -> dict[str, list[str]]:
    return {name: [part.strip() for part in rule.split("|")] for name, rule in _RULES.items()}


def vocabulary() -> list[str]:
    """All words that the grammar can say, upper case, sorted."""
    return sorted({word.upper() for rule in _RULES.values() for word in _SLOT.sub(" ", rule).replace("|", " ").split()})


def sentence(generator: random.Random) -> list[str]:
    """Draw one sentence: its words in upper case."""
    text = "<sentence>"
    while (slot := _SLOT.search(text)) is not None:
        text = text[: slot.start()] + generator.choice(_alternatives()[slot.group(1)]) + text[slot.end() :]
    return text.upper().split()
