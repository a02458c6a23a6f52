"""Nouns by what they name.

Written by hand for labkit. Categories follow the spirit of WordNet's supersenses, a little
finer; each noun has one sense that everybody thinks of first, and stands in one category.
"""

CATEGORIES = {
    "person": "farmer nurse teacher soldier painter lawyer sailor singer dancer waiter baker "
    "plumber poet judge widow orphan nephew uncle hunter tourist monk butcher",
    "animal": "horse rabbit tiger eagle spider frog camel goat otter donkey squirrel whale "
    "lizard pigeon beetle wolf hamster salmon leopard sheep penguin giraffe",
    "food": "bread cheese butter soup pancake sausage honey pasta omelet cake pudding bacon "
    "rice yogurt salad sandwich biscuit noodle jam chocolate stew waffle",
    "tool": "hammer shovel drill wrench axe pliers chisel saw rake screwdriver sickle ladle "
    "scissors crowbar trowel tongs sieve spatula hoe lathe tweezers pickaxe",
    "vehicle": "truck bicycle bus tractor ferry helicopter taxi canoe ambulance submarine "
    "scooter yacht motorcycle airplane sled tram limousine rocket van wagon lorry minivan",
    "building": "church hospital castle cottage library barn museum temple palace warehouse "
    "garage cathedral school prison tower hotel theater chapel villa monastery hut skyscraper",
    "body part": "knee elbow shoulder ankle nose thumb wrist chin forehead liver kidney lung "
    "tongue throat eyebrow stomach heel spine hip toe finger jaw",
    "plant": "oak tulip fern daisy cactus ivy pine moss lily willow orchid bamboo rosebush "
    "maple thistle birch clover sunflower violet elm nettle heather",
    "clothing": "shirt jacket scarf glove sock sweater skirt hat boot blouse coat trousers "
    "dress belt sandal apron vest cap pajamas slipper mitten cardigan",
    "place": "valley desert island forest beach swamp canyon meadow lake mountain harbor "
    "village river prairie glacier jungle bay hill coast pond cave volcano",
}

FRAMES = (
    "Yesterday I read a whole page about the {}",
    "On this list there is also the {}",
    "She asked me a question about the {}",
    "The next word that I have to spell is {}",
    "There is a drawing of the {}",
    "Nobody had mentioned the {}",
)
"""Openings that any noun can end, and that say nothing of its category."""
