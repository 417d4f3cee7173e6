# Long polls, with the standard library only.
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request

wanted = {"quotes": "SY0000,SY01*"}
while True:
    url = "http://127.0.0.1:8765/v1/poll?" + urllib.parse.urlencode(wanted)
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            messages = json.load(answer)["messages"] if answer.status == 200 else []  # 204: nothing new
            wanted["after"] = answer.headers["X-Cursor"]
    except (OSError, http.client.HTTPException) as error:  # OSError: HTTPError too
        if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429:
            raise  # permanent: the same request would be refused again
        time.sleep(2)
        continue
    for message in messages:
        print(message)
