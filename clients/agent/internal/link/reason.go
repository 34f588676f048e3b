package link

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// errKeyMismatch reports a peer that is not the tunnel server the panel announced.
var errKeyMismatch = errors.New("server key fingerprint mismatch")

// refusedError is an answer other than an upgrade.
type refusedError struct {
	status  int
	message string
}

func (e *refusedError) Error() string {
	if e.message == "" {
		return fmt.Sprintf("it answered %d %s", e.status, http.StatusText(e.status))
	}
	return e.message
}

// newRefusedError reads an answer other than an upgrade.
func newRefusedError(response *http.Response) error {
	message, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	return &refusedError{status: response.StatusCode, message: strings.TrimSpace(string(message))}
}

// reason describes for people why there is no link.
func reason(err error) string {
	var closed *websocket.CloseError
	switch {
	case errors.Is(err, errKeyMismatch):
		return errKeyMismatch.Error()
	case errors.As(err, &closed) && closed.Code == channel.CloseRestarting:
		return "it is restarting"
	case channel.Lost(err):
		return "the connection was lost"
	case errors.As(err, &closed) && closed.Text != "":
		return closed.Text
	default:
		return target.Reason(err)
	}
}
