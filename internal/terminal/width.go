package terminal

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// variation16 asks for the wide, coloured form of the character before it.
const variation16 = '\ufe0f'

// Width returns how many columns of a terminal s takes at most, if it is as Escape returns
// it. Terminals differ about emoji that are joined: they take no more than their parts.
func Width(s string) int {
	columns := 0
	for _, r := range s {
		columns += runeWidth(r)
	}
	return columns
}

func runeWidth(r rune) int {
	switch {
	case r == variation16:
		return 1
	case r < ' ', unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r < unicode.MaxLatin1:
		return 1
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	case width.EastAsianAmbiguous:
		return ambiguous(r)
	}
	if r >= 0x1f000 && r <= 0x1faff { // Pictures that an older table does not know.
		return 2
	}
	return 1
}

// ambiguous returns the width of a character that is wide in old East Asian terminals
// alone. Letters and lines are narrow everywhere else; pictures may not be.
func ambiguous(r rune) int {
	if r >= 0x1f000 {
		return 2
	}
	return 1
}

// Fit returns s, which is as Escape returns it, in at most so many columns: what is too
// long ends in more, or is cut off where even that does not fit.
func Fit(s string, columns int, more string) string {
	if Width(s) <= columns {
		return s
	}
	if columns < Width(more) {
		more = ""
	}
	left := columns - Width(more)
	var b strings.Builder
	for _, r := range s {
		w := runeWidth(r)
		if w > left {
			break
		}
		left -= w
		b.WriteRune(r)
	}
	return b.String() + more
}
