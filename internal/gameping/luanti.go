package gameping

import (
	"bytes"
)

// luantiID begins each packet of Luanti. The sender's peer id (0: none yet) in 2 bytes and a
// channel in 1 byte follow, and the packet's type.
var luantiID = []byte{0x4f, 0x45, 0x74, 0x03}

// luantiQuery is an original packet (type 1) without data from a peer that has no id yet.
func luantiQuery() []byte { return append(bytes.Clone(luantiID), 0, 0, 0, 1) }

// parseLuanti parses the answer of a server: a reliable packet (type 3) with a sequence
// number of 2 bytes, and in it a control packet (type 0) that sets the peer's id (1). Bye is
// what ends the connection: a control packet that disconnects (3).
func parseLuanti(data []byte) (game Game, bye []byte, ok bool) {
	if len(data) < 14 || !bytes.HasPrefix(data, luantiID) || data[7] != 3 || data[10] != 0 || data[11] != 1 {
		return Game{}, nil, false
	}
	bye = append(bytes.Clone(luantiID), data[12], data[13], 0, 0, 3)
	return newGame(Luanti, "", "", -1, -1), bye, true
}
