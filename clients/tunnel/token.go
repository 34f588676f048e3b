package tunnel

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

var errNotADeviceToken = errors.New("this is not a device token")

// DeviceID returns the id in a device token. It does not verify the token: only the
// panel can tell whether it is valid. It fails if token is not a device token, such as
// a session token; the error does not repeat it.
func DeviceID(token string) (uuid.UUID, error) {
	claims, err := deviceClaims(token)
	return claims.ID, err
}

// DeviceKind returns the kind in a device token, client or server. Like [DeviceID] it
// does not verify the token.
func DeviceKind(token string) (types.DeviceKind, error) {
	claims, err := deviceClaims(token)
	return claims.Kind, err
}

// TokenDevice returns the device in the client's token. It is the zero UUID if that is
// not a device token. Like [DeviceID] it does not verify the token.
func (c *Client) TokenDevice() uuid.UUID {
	claims, err := deviceClaims(c.sender.token())
	if err != nil {
		return uuid.Nil
	}
	return claims.ID
}

// TokenPanel returns the identity of the panel in the client's device token, which
// snapshots of the control channel repeat. It is the zero UUID if the token does not
// name its panel or is not a device token. Like [DeviceID] it does not verify the token.
func (c *Client) TokenPanel() uuid.UUID {
	claims, err := deviceClaims(c.sender.token())
	if err != nil {
		return uuid.Nil
	}
	return claims.Panel
}

type tokenClaims struct {
	ID    uuid.UUID        `json:"sub"`
	Kind  types.DeviceKind `json:"kind"`
	Panel uuid.UUID        `json:"panel"`
}

// deviceClaims decodes the payload of a JWT in compact form (RFC 7519
// section 3). Its errors do not repeat the token.
func deviceClaims(token string) (tokenClaims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return tokenClaims{}, errNotADeviceToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return tokenClaims{}, errNotADeviceToken
	}
	var claims tokenClaims
	if json.Unmarshal(payload, &claims) != nil || claims.ID == uuid.Nil || !claims.Kind.Valid() {
		return tokenClaims{}, errNotADeviceToken
	}
	return claims, nil
}
