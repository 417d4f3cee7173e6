import marketfeed

for message in marketfeed.stream("http://127.0.0.1:8765", quotes=["SY0000", "SY01*"]):
    print(message)
