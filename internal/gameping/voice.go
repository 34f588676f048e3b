package gameping

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// teamSpeakMark is the message authentication code of each packet before the keys are
// known.
const teamSpeakMark = "TS3INIT1"

// teamSpeakQuery is the first packet of a connection (step 0): the mark, packet 101, client 0,
// flags and type, then the client's version, the step, a time, a random number and 8 zeros.
func teamSpeakQuery(nonce uint64) []byte {
	query := append([]byte(teamSpeakMark), 0x00, 0x65, 0x00, 0x00, 0x88)
	query = append(query, 0x09, 0x83, 0x8c, 0xcf, 0x00)
	query = binary.BigEndian.AppendUint64(query, nonce)
	return append(query, 0, 0, 0, 0, 0, 0, 0, 0)
}

// parseTeamSpeak parses the server's answer (step 1). It tells nothing of the server.
func parseTeamSpeak(data []byte) (Game, bool) {
	const header = len(teamSpeakMark) + 2 + 1
	if len(data) < header+1+16 || !bytes.HasPrefix(data, []byte(teamSpeakMark)) || data[header] != 0x01 {
		return Game{}, false
	}
	return newGame(TeamSpeak3, "", "", -1, -1), true
}

// mumbleQuery is 4 zeros and a number that the answer repeats.
func mumbleQuery(nonce uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4), nonce)
}

// parseMumble parses the answer to a ping: a zero, the version's three numbers, the number of
// the ping, and in 4 bytes each the users, their maximum and the bandwidth.
func parseMumble(data []byte, nonce uint64) (Game, bool) {
	if len(data) != 24 || data[0] != 0 || binary.BigEndian.Uint64(data[4:]) != nonce {
		return Game{}, false
	}
	version := fmt.Sprintf("%d.%d.%d", data[1], data[2], data[3])
	users, most := binary.BigEndian.Uint32(data[12:]), binary.BigEndian.Uint32(data[16:])
	return newGame(Mumble, "", version, int(users), int(most)), true
}
