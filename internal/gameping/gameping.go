// Package gameping asks game servers for their status, as the server browsers of games do,
// to tell "a game answers" from "a port is open".
//
// The codecs are pure: each builds the queries of one protocol and parses its answers,
// which may be anything that a stranger sends. Their sources are:
//
//	minecraft.go  Minecraft Java Edition "Server List Ping" (minecraft.wiki), with the answer
//	              of servers before 1.7, and Bedrock Edition's RakNet "Unconnected Ping"
//	a2s.go        Valve's "Server queries" (developer.valvesoftware.com), A2S_INFO with challenge
//	quake3.go     Quake III Arena's out-of-band "getstatus"
//	voice.go      TeamSpeak 3's first packet of a connection, and Mumble's ping
//	              (mumble-protocol, "UDP ping packet")
//	luanti.go     the first packet of a Luanti (Minetest) connection
//
// [Probe] sends all of a transport's queries to one address and takes the first answer that
// is of a known game.
package gameping

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is the protocol in which a game has answered.
type Kind string

// The kinds.
const (
	MinecraftJava    Kind = "minecraft_java"
	MinecraftBedrock Kind = "minecraft_bedrock"
	Source           Kind = "source" // Any game that answers A2S_INFO.
	Quake3           Kind = "quake3" // Any game that answers getstatus.
	Luanti           Kind = "luanti"
	TeamSpeak3       Kind = "teamspeak3"
	Mumble           Kind = "mumble"
)

// Game is what a game server says of itself. It is a stranger's word: texts are of one line,
// without control characters and no longer than [MaxText] characters.
type Game struct {
	Kind Kind
	// Name is the name or the message of the day, and Version that of the program; "" if
	// the protocol does not tell.
	Name, Version string
	// Players and MaxPlayers are -1 if the protocol does not tell.
	Players, MaxPlayers int
}

// MaxText bounds each text of a Game, in characters.
const MaxText = 200

// maxCount bounds numbers of players.
const maxCount = 1 << 30

// newGame returns a Game within its bounds.
func newGame(kind Kind, name, version string, players, most int) Game {
	return Game{Kind: kind, Name: clean(name), Version: clean(version), Players: count(players), MaxPlayers: count(most)}
}

func count(n int) int {
	if n < 0 || n > maxCount {
		return -1
	}
	return n
}

// clean makes one line of a game's text: formatting codes of Minecraft (§ and a letter) and
// of Quake (^ and a digit) are left out, and so is what a terminal would act on.
func clean(text string) string {
	var b strings.Builder
	length, space := 0, false
	for i := 0; i < len(text) && length < MaxText; {
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		switch {
		case r == '§':
			_, code := utf8.DecodeRuneInString(text[i:])
			i += code
		case r == '^' && i < len(text) && '0' <= text[i] && text[i] <= '9':
			i++
		case r == utf8.RuneError && size <= 1:
		case unicode.IsSpace(r):
			space = b.Len() > 0
		case !unicode.IsPrint(r):
		default:
			if space && length+1 < MaxText {
				b.WriteByte(' ')
				length++
			}
			space = false
			b.WriteRune(r)
			length++
		}
	}
	return b.String()
}
