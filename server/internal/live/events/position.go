package events

import (
	"strconv"
	"strings"
)

// position is a place in the log, as the id of an event. Its text is opaque to subscribers: the epoch and the
// id in base 36, with a hyphen between them.
type position struct {
	epoch string
	id    int64
}

func (p position) String() string { return p.epoch + "-" + strconv.FormatInt(p.id, 36) }

// parsePosition parses the id of an event.
func parsePosition(text string) (position, bool) {
	epoch, number, ok := strings.Cut(text, "-")
	id, err := strconv.ParseInt(number, 36, 64)
	return position{epoch, id}, ok && err == nil && id >= 0
}
