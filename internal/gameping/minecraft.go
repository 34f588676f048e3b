package gameping

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
)

// maxJavaAnswer bounds the answer of a Java server in bytes: 32,767 UTF-16 units of JSON, an
// icon included, and their header.
const maxJavaAnswer = 3*32767 + 16

// javaQuery is the handshake and the status request of Minecraft Java Edition. A packet is
// its length and its id as VarInts, then fields; the handshake (id 0) has the protocol
// version as a VarInt (-1: unknown), the host as a string, the port as 2 bytes, and the next
// state (1: status).
func javaQuery(host string, port uint16) []byte {
	if len(host) > 255 {
		host = ""
	}
	body := []byte{0x00, 0xff, 0xff, 0xff, 0xff, 0x0f}
	body = binary.AppendUvarint(body, uint64(len(host)))
	body = append(body, host...)
	body = binary.BigEndian.AppendUint16(body, port)
	body = append(body, 0x01)
	query := binary.AppendUvarint(nil, uint64(len(body)))
	query = append(query, body...)
	return append(query, 0x01, 0x00)
}

// parseJava parses the beginning of what a server has answered to javaQuery. More means that
// it may be an answer once more has arrived.
func parseJava(data []byte) (game Game, ok, more bool) {
	if len(data) == 0 {
		return Game{}, false, true
	}
	if data[0] == 0xff {
		return parseJavaKick(data)
	}
	length, n := binary.Uvarint(data)
	switch {
	case n == 0:
		return Game{}, false, len(data) < 5
	case n < 0 || length < 3 || length > maxJavaAnswer:
		return Game{}, false, false
	case uint64(len(data)-n) < length:
		// The id and the first byte of JSON are checked before waiting for more.
		return Game{}, false, len(data) == n || data[n] == 0x00
	}
	packet := data[n : n+int(length)]
	size, n := binary.Uvarint(packet[1:])
	if packet[0] != 0x00 || n <= 0 || size > uint64(len(packet)-1-n) {
		return Game{}, false, false
	}
	game, ok = parseJavaStatus(packet[1+n : 1+n+int(size)])
	return game, ok, false
}

func parseJavaStatus(data []byte) (Game, bool) {
	var status struct {
		Version struct {
			Name string `json:"name"`
		} `json:"version"`
		Players *struct {
			Max    int `json:"max"`
			Online int `json:"online"`
		} `json:"players"`
		Description json.RawMessage `json:"description"`
	}
	if json.Unmarshal(data, &status) != nil {
		return Game{}, false
	}
	players, most := -1, -1
	if status.Players != nil {
		players, most = status.Players.Online, status.Players.Max
	}
	return newGame(MinecraftJava, chatText(status.Description, 0), status.Version.Name, players, most), true
}

// maxChatDepth bounds the nesting of a chat component.
const maxChatDepth = 8

// chatText returns the text of a chat component: a string, a list of components, or an object
// with text and, in extra, further ones.
func chatText(data json.RawMessage, depth int) string {
	if depth > maxChatDepth || len(data) == 0 {
		return ""
	}
	var text string
	if json.Unmarshal(data, &text) == nil {
		return text
	}
	var list []json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		var object struct {
			Text  string            `json:"text"`
			Extra []json.RawMessage `json:"extra"`
		}
		if json.Unmarshal(data, &object) != nil {
			return ""
		}
		text, list = object.Text, object.Extra
	}
	var b strings.Builder
	b.WriteString(text)
	for _, part := range list {
		if b.Len() > 4*MaxText {
			break
		}
		b.WriteString(chatText(part, depth+1))
	}
	return b.String()
}

// parseJavaKick parses the answer of a server before 1.7: 0xff, a number of UTF-16 units, and
// in them "§1", a protocol version, the version, the name, the players and their maximum with
// NULs between them, or, before 1.4, the name, the players and their maximum with § between.
func parseJavaKick(data []byte) (game Game, ok, more bool) {
	if len(data) < 3 {
		return Game{}, false, true
	}
	units := int(binary.BigEndian.Uint16(data[1:]))
	if units == 0 || units > 1024 {
		return Game{}, false, false
	}
	if len(data) < 3+2*units {
		return Game{}, false, true
	}
	text := make([]uint16, units)
	for i := range text {
		text[i] = binary.BigEndian.Uint16(data[3+2*i:])
	}
	whole := string(utf16.Decode(text))
	if fields := strings.Split(whole, "\x00"); len(fields) == 6 && fields[0] == "§1" {
		return newGame(MinecraftJava, fields[3], fields[2], number(fields[4]), number(fields[5])), true, false
	}
	fields := strings.Split(whole, "§")
	if last := len(fields); last >= 3 {
		return newGame(MinecraftJava, strings.Join(fields[:last-2], "§"), "", number(fields[last-2]), number(fields[last-1])), true, false
	}
	// A server that takes the query for a login that it refuses is a Minecraft server too.
	return newGame(MinecraftJava, "", "", -1, -1), true, false
}

func number(text string) int {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return -1
	}
	return n
}

// rakNetMagic marks RakNet's messages without a connection.
var rakNetMagic = []byte{0x00, 0xff, 0xff, 0x00, 0xfe, 0xfe, 0xfe, 0xfe, 0xfd, 0xfd, 0xfd, 0xfd, 0x12, 0x34, 0x56, 0x78}

// bedrockQuery is an Unconnected Ping: 0x01, the time in 8 bytes, the magic, and the sender's
// identity in 8 bytes.
func bedrockQuery(nonce uint64) []byte {
	query := binary.BigEndian.AppendUint64([]byte{0x01}, nonce)
	query = append(query, rakNetMagic...)
	return binary.BigEndian.AppendUint64(query, nonce)
}

// parseBedrock parses an Unconnected Pong: 0x1c, the time, the server's identity, the magic,
// and a string of 2 bytes of length: edition, name, protocol, version, players and their
// maximum, and more, with semicolons between them.
func parseBedrock(data []byte, nonce uint64) (Game, bool) {
	const header = 1 + 8 + 8 + 16
	if len(data) < header+2 || data[0] != 0x1c || binary.BigEndian.Uint64(data[1:]) != nonce || !bytes.Equal(data[17:header], rakNetMagic) {
		return Game{}, false
	}
	text := data[header+2:]
	if length := int(binary.BigEndian.Uint16(data[header:])); length < len(text) {
		text = text[:length]
	}
	fields := strings.Split(string(text), ";")
	if len(fields) < 6 {
		return newGame(MinecraftBedrock, "", "", -1, -1), true
	}
	return newGame(MinecraftBedrock, fields[1], fields[3], number(fields[4]), number(fields[5])), true
}
