package tcpstream

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
)

// recordHeader is the length of a TLS record's header (RFC 8446 section 5.1),
// the last two bytes of which are the length of what follows.
const recordHeader = 5

// KeepRecords makes the TLS connection that will be made on s read no byte beyond
// the record it needs, until LeaveTLS. The end that is asked to leave TLS calls it:
// it must not read ahead what follows in plain text.
func (s *Socket) KeepRecords() { s.records = true }

// LeaveTLS returns the connection below TLS, for both ends to go on without
// encryption. The peer must send nothing more under TLS than has been read.
func LeaveTLS(conn net.Conn) (net.Conn, error) {
	if t, ok := conn.(*tls.Conn); ok {
		if s, ok := t.NetConn().(*Socket); ok && s.atRecord() {
			s.records = false
			return s, nil
		}
	}
	return nil, errors.New("tcpstream: a connection that cannot leave TLS")
}

// StayWithTLS undoes KeepRecords on the Socket below conn.
func StayWithTLS(conn net.Conn) {
	if s := socketBelow(conn); s != nil {
		s.records = false
	}
}

// atRecord reports whether no record has been read in part.
func (s *Socket) atRecord() bool { return len(s.header) == 0 && s.payload == 0 }

// readRecords reads at most to the end of the current record's header or
// payload.
func (s *Socket) readRecords(p []byte) (int, error) {
	if s.payload > 0 {
		n, err := s.TCPConn.Read(p[:min(len(p), s.payload)])
		s.payload -= n
		return n, err
	}
	n, err := s.TCPConn.Read(p[:min(len(p), recordHeader-len(s.header))])
	s.header = append(s.header, p[:n]...)
	if len(s.header) == recordHeader {
		s.payload = int(binary.BigEndian.Uint16(s.header[recordHeader-2:]))
		s.header = s.header[:0]
	}
	return n, err
}
