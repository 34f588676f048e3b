package gameping

import (
	"bytes"
	"slices"
)

// outOfBand begins each query and answer of Valve's and Quake's protocols.
var outOfBand = []byte{0xff, 0xff, 0xff, 0xff}

// a2sQuery is A2S_INFO, with the challenge that the server has answered with before, of 4
// bytes, or nil.
func a2sQuery(challenge []byte) []byte {
	return slices.Concat(outOfBand, []byte("TSource Engine Query\x00"), challenge)
}

// parseA2S parses an answer to A2S_INFO. An answer that is a challenge is no game yet: the
// query is to be repeated with it.
func parseA2S(data []byte) (game Game, challenge []byte, ok bool) {
	if len(data) < 6 || !bytes.HasPrefix(data, outOfBand) {
		return Game{}, nil, false
	}
	r := reader{data: data[5:]}
	switch data[4] {
	case 'A': // S2C_CHALLENGE
		if len(r.data) < 4 {
			return Game{}, nil, false
		}
		return Game{}, r.data[:4], false
	case 'I':
		r.skip(1) // The protocol.
		name := r.text()
		r.text() // The map, the folder and the game.
		r.text()
		r.text()
		r.skip(2) // The application.
		players, most := r.byte(), r.byte()
		r.skip(5) // Bots, kind and system of the server, password, VAC.
		version := r.text()
		if r.bad { // A few games leave out the end.
			version = ""
		}
		return newGame(Source, name, version, players, most), nil, true
	case 'm': // The answer of GoldSource before 2008.
		r.text() // The address.
		name := r.text()
		r.text() // The map, the folder and the game.
		r.text()
		r.text()
		return newGame(Source, name, "", r.byte(), r.byte()), nil, true
	}
	return Game{}, nil, false
}

// reader reads the fields of an answer. Beyond the end all are empty.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) skip(n int) {
	if n > len(r.data) {
		r.bad, r.data = true, nil
		return
	}
	r.data = r.data[n:]
}

// byte returns a byte, or -1 beyond the end.
func (r *reader) byte() int {
	if len(r.data) == 0 {
		r.bad = true
		return -1
	}
	b := r.data[0]
	r.data = r.data[1:]
	return int(b)
}

// text returns a text that ends with NUL.
func (r *reader) text() string {
	text, rest, ok := bytes.Cut(r.data, []byte{0})
	if !ok {
		r.bad, r.data = true, nil
		return ""
	}
	r.data = rest
	return string(text)
}
