package main

// Endpoints that the real server has and the stand-in does not play. They answer 501 and not 404, so
// that a gateway which lets one of them through is seen.

import "net/http"

func absentRoutes() routes {
	absent := func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotImplemented, r.URL.Path+" is not in the lab's stand-in")
	}
	table := routes{}
	for path, method := range map[string]string{
		"/api/push":                    http.MethodPost,
		"/api/me":                      http.MethodPost,
		"/api/signout":                 http.MethodPost,
		"/api/user/keys/":              http.MethodDelete,
		"/api/status":                  http.MethodGet,
		"/api/experimental/web_search": http.MethodPost,
		"/api/experimental/web_fetch":  http.MethodPost,
		"/api/experimental/model-recommendations": http.MethodGet,
		"/v1/responses":            http.MethodPost,
		"/v1/messages":             http.MethodPost,
		"/v1/audio/transcriptions": http.MethodPost,
	} {
		table[path] = map[string]http.HandlerFunc{method: absent}
	}
	return table
}
