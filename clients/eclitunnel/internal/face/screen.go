package face

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// Control sequences of ECMA-48, and private modes of DEC terminals: 25 is the cursor, 7
// that long rows are continued in the next one, 2026 that a frame is shown as a whole,
// which terminals that do not know it skip.
const (
	beginFrame = "\x1b[?2026h\x1b[?25l\x1b[?7l\r"
	endFrame   = "\x1b[?7h\x1b[?25h\x1b[?2026l"
	eraseRow   = "\x1b[K"
	eraseBelow = "\x1b[J"
)

// Screen draws pictures in a terminal, each in the place of the last. What is written to it
// stays above the picture, as the terminal's history. The cursor is in the row below the
// picture, and visible between two frames, however the program ends. Its methods may be
// called from any goroutine.
type Screen struct {
	mu     sync.Mutex
	out    io.Writer
	drawn  []string
	size   Size
	broken []byte // The begin of a line that is not complete.
}

// NewScreen returns a screen that draws to out.
func NewScreen(out io.Writer) *Screen { return &Screen{out: out} }

// Draw draws rows for a terminal of that size, which it must fit.
func (s *Screen) Draw(rows []string, size Size) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size == s.size && slices.Equal(rows, s.drawn) {
		return nil
	}
	var frame strings.Builder
	frame.WriteString(beginFrame)
	frame.WriteString(s.top(size))
	s.size, s.drawn = size, slices.Clone(rows)
	s.picture(&frame)
	return s.write(frame.String())
}

// Write writes whole lines above the picture; the rest of one waits for its end.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = append(s.broken, p...)
	end := bytes.LastIndexByte(s.broken, '\n')
	if end < 0 {
		return len(p), nil
	}
	var frame strings.Builder
	frame.WriteString(beginFrame)
	frame.WriteString(s.top(s.size))
	frame.WriteString(eraseBelow)
	frame.WriteString("\x1b[?7h") // A long line is continued.
	frame.Write(bytes.ReplaceAll(s.broken[:end+1], []byte("\n"), []byte("\r\n")))
	frame.WriteString("\x1b[?7l")
	s.picture(&frame)
	s.broken = append(s.broken[:0], s.broken[end+1:]...)
	if err := s.write(frame.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close leaves the last picture, and the cursor in an empty row below it.
func (s *Screen) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write("\r" + eraseBelow) // Ctrl-C was shown there, perhaps.
}

// top moves the cursor to the first row of the picture. A terminal that has become narrower
// has continued rows in further ones.
func (s *Screen) top(size Size) string {
	up := 0
	for _, row := range s.drawn {
		up++
		if width := terminal.Width(plain(row)); size.Columns > 0 && size.Columns < s.size.Columns && width > size.Columns {
			up += (width - 1) / size.Columns
		}
	}
	if size.Rows > 0 {
		up = min(up, size.Rows-1)
	}
	if up == 0 {
		return ""
	}
	return "\x1b[" + strconv.Itoa(up) + "A"
}

// picture draws what is to be seen, and erases what is left of the last picture.
func (s *Screen) picture(frame *strings.Builder) {
	for _, row := range s.drawn {
		frame.WriteString(row + eraseRow + "\r\n")
	}
	frame.WriteString(eraseBelow + endFrame)
}

func (s *Screen) write(frame string) error {
	_, err := io.WriteString(s.out, frame)
	return err
}
