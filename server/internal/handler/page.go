package handler

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// page requests one row more than wanted, which tells whether there is a next page.
func page[K any](limit *int, after *K) (wanted int, request db.Page[K]) {
	wanted = types.DefaultLimit
	if limit != nil {
		wanted = *limit
	}
	return wanted, db.Page[K]{Limit: wanted + 1, After: after}
}

// cut removes the extra row of page and returns the Link header to the next page
// (RFC 8288), or nil if there is none. parameters are names and values of other query
// parameters that the page has, of which a name may have several; an empty value is left out.
func cut[T any](rows []T, wanted int, path string, key func(T) string, parameters ...string) ([]T, *string) {
	return cutAs(rows, wanted, path, "after", key, parameters...)
}

// cutAs is cut with another name of the parameter for the position.
func cutAs[T any](rows []T, wanted int, path, position string, key func(T) string, parameters ...string) ([]T, *string) {
	if len(rows) <= wanted {
		return rows, nil
	}
	rows = rows[:wanted]
	query := url.Values{
		"limit":  {strconv.Itoa(wanted)},
		position: {key(rows[wanted-1])},
	}
	for i := 0; i+1 < len(parameters); i += 2 {
		if parameters[i+1] != "" {
			query.Add(parameters[i], parameters[i+1])
		}
	}
	link := fmt.Sprintf(`<%s?%s>; rel="next"`, path, query.Encode())
	return rows, &link
}

var errNoPosition = problem.Invalid(problem.Field("after", "is not a position in this list; use the URL in the Link header"))

// textPosition returns the text that the parameter `after` encodes, or nil without one.
func textPosition(after *string) (*string, error) {
	if after == nil {
		return nil, nil
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(*after)
	if err != nil || !utf8.Valid(text) || bytes.Contains(text, []byte{0}) { // Postgres takes no NUL.
		return nil, errNoPosition
	}
	position := string(text)
	return &position, nil
}

// cursorBytes is the length of a decoded cursor: microseconds since 1970 as 8 bytes in
// big-endian order, then the 16 bytes of the UUID.
const cursorBytes = 8 + 16

// lastMicrosecond bounds the times of a cursor. Postgres rejects some beyond it.
var lastMicrosecond = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() - 1

// cursor encodes a position in the list of devices. It has the sort key, so that it
// stays valid when the device is deleted; Postgres keeps times in microseconds.
func cursor(position db.DevicePosition) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(position.CreatedAt.UnixMicro()))
	return base64.RawURLEncoding.EncodeToString(append(raw, position.ID[:]...))
}

// parseCursor decodes a cursor. It reports whether text is one.
func parseCursor(text string) (db.DevicePosition, bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != cursorBytes {
		return db.DevicePosition{}, false
	}
	microseconds := binary.BigEndian.Uint64(raw)
	if microseconds > uint64(lastMicrosecond) {
		return db.DevicePosition{}, false
	}
	return db.DevicePosition{CreatedAt: time.UnixMicro(int64(microseconds)).UTC(), ID: uuid.UUID(raw[8:])}, true
}

// auditCursorBytes is the length of a decoded cursor of the audit trail: microseconds since 1970,
// then the id, 8 bytes each in big-endian order.
const auditCursorBytes = 8 + 8

// auditCursor encodes the position of an entry. It has the sort key, so that it stays valid when
// the entry is deleted.
func auditCursor(row db.AuditEntry) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(row.At.UnixMicro()))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(raw, uint64(row.ID)))
}

// auditPosition decodes the parameter `after`; it returns nil without one.
func auditPosition(after *string) (*db.AuditPosition, error) {
	if after == nil {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(*after)
	if err != nil || len(raw) != auditCursorBytes || binary.BigEndian.Uint64(raw) > uint64(lastMicrosecond) {
		return nil, errNoPosition
	}
	at := time.UnixMicro(int64(binary.BigEndian.Uint64(raw))).UTC()
	return &db.AuditPosition{At: at, ID: int64(binary.BigEndian.Uint64(raw[8:]))}, nil
}
