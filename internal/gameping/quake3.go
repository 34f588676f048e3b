package gameping

import (
	"bytes"
	"slices"
	"strings"
)

// quake3Query asks for the status of a game of Quake III Arena's family.
func quake3Query() []byte { return slices.Concat(outOfBand, []byte("getstatus\n")) }

// parseQuake3 parses "statusResponse": a line of keys and values with backslashes before
// each, and a line for each player.
func parseQuake3(data []byte) (Game, bool) {
	rest, ok := bytes.CutPrefix(data, slices.Concat(outOfBand, []byte("statusResponse\n")))
	if !ok {
		return Game{}, false
	}
	info, lines, _ := bytes.Cut(rest, []byte("\n"))
	fields := strings.Split(strings.TrimPrefix(string(info), `\`), `\`)
	values := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		values[strings.ToLower(fields[i])] = fields[i+1]
	}
	most := -1
	if text, ok := values["sv_maxclients"]; ok {
		most = number(text)
	}
	players := 0
	for line := range bytes.Lines(lines) {
		if len(bytes.Trim(line, "\r\n\x00 ")) > 0 {
			players++
		}
	}
	return newGame(Quake3, values["sv_hostname"], values["version"], players, most), true
}
