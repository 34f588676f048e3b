package game

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Packets of the status conversation. A handshake and a status request share
// their number: which one is meant depends on the state of the conversation.
const (
	packetHandshake = 0x00
	packetStatus    = 0x00
	packetPing      = 0x01

	// nextStateStatus in a handshake asks for the status conversation.
	nextStateStatus = 1
)

const (
	// maxRequest bounds what a server reads of a player who may be anyone.
	maxRequest = 1 << 10
	// maxResponse bounds what a player reads; a status carries an icon in base64.
	maxResponse = 1 << 18
)

// javaStatus is the JSON of a status response.
type javaStatus struct {
	Version struct {
		Name     string `json:"name"`
		Protocol int    `json:"protocol"`
	} `json:"version"`
	Players struct {
		Max    int `json:"max"`
		Online int `json:"online"`
	} `json:"players"`
	Description struct {
		Text string `json:"text"`
	} `json:"description"`
}

// serveJava holds one status conversation; status is asked for once the player
// has asked for it.
func serveJava(conn net.Conn, status func() Status) error {
	r := bufio.NewReader(conn)
	if err := readHandshake(conn, r); err != nil {
		return err
	}
	for {
		id, payload, err := readPacket(conn, r, maxRequest)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch id {
		case packetStatus:
			payload, err = encodeStatus(status())
			if err != nil {
				return err
			}
		case packetPing:
			// The pong is the ping: it carries the player's own clock back.
		default:
			return fmt.Errorf("unexpected packet 0x%02x", id)
		}
		if err := writePacket(conn, id, payload); err != nil {
			return err
		}
	}
}

func readHandshake(conn net.Conn, r *bufio.Reader) error {
	id, payload, err := readPacket(conn, r, maxRequest)
	if err != nil {
		return fmt.Errorf("read handshake: %w", err)
	}
	// The next state is the handshake's last field, and a single byte.
	if id != packetHandshake || len(payload) == 0 || payload[len(payload)-1] != nextStateStatus {
		return errors.New("read handshake: not a request for the server's status")
	}
	return nil
}

func encodeStatus(s Status) ([]byte, error) {
	var body javaStatus
	body.Version.Name, body.Version.Protocol = s.Version, s.Protocol
	body.Players.Online, body.Players.Max = s.Online, s.Max
	body.Description.Text = s.MOTD
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	return appendString(nil, string(text)), nil
}

func decodeStatus(payload []byte) (Status, error) {
	length, n := binary.Uvarint(payload)
	if n <= 0 || length != uint64(len(payload)-n) {
		return Status{}, errors.New("decode status: not one string")
	}
	var body javaStatus
	if err := json.Unmarshal(payload[n:], &body); err != nil {
		return Status{}, fmt.Errorf("decode status: %w", err)
	}
	return Status{
		MOTD:     body.Description.Text,
		Version:  body.Version.Name,
		Protocol: body.Version.Protocol,
		Online:   body.Players.Online,
		Max:      body.Players.Max,
	}, nil
}

// PingJava asks the server at addr ("host:port") for its status, as the server
// list of Minecraft Java Edition does, and measures the round trip of a ping
// on the connection it then has. It gives up when ctx ends, or after 10 s of
// silence.
func PingJava(ctx context.Context, addr string) (Status, time.Duration, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return Status{}, 0, fmt.Errorf("ping %s: %w", addr, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return Status{}, 0, fmt.Errorf("ping %s: port: %w", addr, err)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return Status{}, 0, fmt.Errorf("ping: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	status, rtt, err := askJava(conn, host, uint16(port))
	if err != nil {
		return Status{}, 0, fmt.Errorf("ping %s: %w", addr, errors.Join(err, ctx.Err()))
	}
	return status, rtt, nil
}

func askJava(conn net.Conn, host string, port uint16) (Status, time.Duration, error) {
	handshake := binary.AppendUvarint(nil, javaProtocol)
	handshake = appendString(handshake, host)
	handshake = binary.BigEndian.AppendUint16(handshake, port)
	handshake = append(handshake, nextStateStatus)
	if err := writePacket(conn, packetHandshake, handshake); err != nil {
		return Status{}, 0, err
	}
	r := bufio.NewReader(conn)
	payload, err := roundTrip(conn, r, packetStatus, nil)
	if err != nil {
		return Status{}, 0, err
	}
	status, err := decodeStatus(payload)
	if err != nil {
		return Status{}, 0, err
	}
	sent := time.Now()
	ping := binary.BigEndian.AppendUint64(nil, uint64(sent.UnixMilli()))
	pong, err := roundTrip(conn, r, packetPing, ping)
	if err != nil {
		return Status{}, 0, err
	}
	if string(pong) != string(ping) {
		return Status{}, 0, errors.New("the pong is not the ping's")
	}
	return status, time.Since(sent), nil
}

func roundTrip(conn net.Conn, r *bufio.Reader, id uint64, payload []byte) ([]byte, error) {
	if err := writePacket(conn, id, payload); err != nil {
		return nil, err
	}
	got, answer, err := readPacket(conn, r, maxResponse)
	if err != nil {
		return nil, err
	}
	if got != id {
		return nil, fmt.Errorf("packet 0x%02x in answer to 0x%02x", got, id)
	}
	return answer, nil
}

// readPacket reads a length, a packet's number and its payload.
func readPacket(conn net.Conn, r *bufio.Reader, limit uint64) (id uint64, payload []byte, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, nil, err
	}
	if length == 0 || length > limit {
		return 0, nil, fmt.Errorf("packet of %d bytes", length)
	}
	packet := make([]byte, length)
	if _, err := io.ReadFull(r, packet); err != nil {
		return 0, nil, fmt.Errorf("read packet: %w", err)
	}
	id, n := binary.Uvarint(packet)
	if n <= 0 {
		return 0, nil, errors.New("packet without a number")
	}
	return id, packet[n:], nil
}

func writePacket(conn net.Conn, id uint64, payload []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	packet := append(binary.AppendUvarint(nil, id), payload...)
	framed := append(binary.AppendUvarint(nil, uint64(len(packet))), packet...)
	_, err := conn.Write(framed)
	return err
}

// appendString writes a string as the game does: its length in bytes, then UTF-8.
func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
