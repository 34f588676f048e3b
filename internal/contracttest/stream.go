package contracttest

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
)

// eventStream is the media type of server-sent events.
const eventStream = "text/event-stream"

// stream is the body of a stream of events, each of which is checked as it is read. It is handed on unchanged.
type stream struct {
	transport *transport
	body      io.ReadCloser
	frame     []byte // What has been read of the current event.
}

func (s *stream) Close() error { return s.body.Close() }

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.frame = append(s.frame, p[:n]...)
	for {
		frame, rest, whole := bytes.Cut(s.frame, []byte("\n\n"))
		if !whole {
			return n, err
		}
		if err := s.transport.contract.checkFrame(string(frame)); err != nil {
			s.transport.t.Errorf("an event is against the contract: %v\n%s", err, frame)
		}
		s.frame = rest
	}
}

// checkFrame checks the fields of an event, and its data against the schema LiveEvent.
func (c *contract) checkFrame(frame string) error {
	fields := map[string]string{}
	for line := range strings.SplitSeq(frame, "\n") {
		name, value, ok := strings.Cut(line, ": ")
		if _, twice := fields[name]; !ok || twice {
			return fmt.Errorf("line %q", line)
		}
		fields[name] = value
	}
	if _, hasData := fields["data"]; !hasData {
		if fields["event"] != "" || fields["id"] != "" {
			return fmt.Errorf("it has no data")
		}
		return nil // A comment, or the time to reconnect.
	}
	value, err := openapi3filter.JSONBodyDecoder(strings.NewReader(fields["data"]), nil, nil, nil)
	if err != nil {
		return err
	}
	if event, _ := value.(map[string]any); event["type"] != fields["event"] {
		return fmt.Errorf("its name is %q, and its type %v", fields["event"], event["type"])
	}
	schema := c.doc.Components.Schemas["LiveEvent"].Value
	return schema.VisitJSON(value, openapi3.VisitAsResponse(), openapi3.MultiErrors(), formats)
}
